import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

const PROJECT = join(import.meta.dirname, "..", "..", "..");
const ENVIRONMENT = join(PROJECT, ".cache", "synapse");

/**
 * Installs the pinned Synapse, if it is not there yet, and answers its Python interpreter. Safe to call from several
 * processes at once.
 *
 * @throws if Python 3 or a package can't be had; the message holds pip's own words.
 */
export async function installSynapse(): Promise<string> {
  await run("python3", [join(import.meta.dirname, "install.py"), ENVIRONMENT], { maxBuffer: 16 * 1024 * 1024 });
  return join(ENVIRONMENT, "bin", "python");
}
