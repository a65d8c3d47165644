import { Command, CommanderError, InvalidArgumentError } from "commander";
import { readFileSync } from "node:fs";
import { inspect } from "node:util";
import { EXIT_FATAL } from "./child-process-run.ts";
import { checkDataDir, checkFiles } from "./check-surroundings.ts";
import { ConfigError, describeSettings, loadConfig } from "./config.ts";
import { FatalStart } from "./keep-running.ts";
import { addOperatorCommands, type CommandLine } from "./operator-commands.ts";

/** Where package.json lies differs between the sources and the build. */
function readVersion(): string {
  for (const up of ["../../package.json", "../../../package.json"]) {
    try {
      const { version } = JSON.parse(readFileSync(new URL(up, import.meta.url), "utf8")) as { version: string };
      return version;
    } catch {
      continue; // the other place
    }
  }
  return "unknown";
}

function addProcessCommands(program: Command, line: CommandLine): void {
  program
    .command("start")
    .description("run everything: serve, worker, and embedded PostgreSQL and Temporal where none are named")
    .action(async () => {
      const { start } = await import("./start.ts");
      await start(loadConfig(line.env));
    });
  program
    .command("serve")
    .description("run the HTTP half: the client-server API, the federation API, delivery")
    .action(async () => {
      const { serve } = await import("./serve.ts");
      await serve(loadConfig(line.env));
    });
  program
    .command("worker")
    .description("run the resyncs: a Temporal worker")
    .action(async () => {
      const { work } = await import("./worker.ts");
      await work(loadConfig(line.env));
    });
  program.command("watchdog", { hidden: true }).action(async () => {
    const { runWatchdog } = await import("./watchdog.ts");
    await runWatchdog();
  });
}

function addToolCommand(program: Command): void {
  program
    .command("tool")
    .description("the protocol core for scripts: one JSON object a line in, one JSON answer a line out")
    .argument("<name>", "resolve-state, authorize, event-id, redact or verify")
    .action(async (name: string) => {
      const { isToolName, runTool, TOOL_NAMES } = await import("../operator/tool.ts");
      if (!isToolName(name)) {
        throw new InvalidArgumentError(`there is no tool ${JSON.stringify(name)}; there are ${TOOL_NAMES.join(", ")}`);
      }
      await runTool(name, process.stdin, process.stdout);
    });
}

/** The command line as a commander program; it throws instead of ending the process. */
function createProgram(line: CommandLine): Command {
  const program = new Command("fastjoin")
    .description("Joins large Matrix rooms in about a second and repairs their state durably behind it.")
    .version(readVersion())
    .exitOverride()
    .configureOutput({ writeOut: line.write })
    .configureHelp({ sortSubcommands: false });
  addProcessCommands(program, line);
  addOperatorCommands(program, line);
  program
    .command("config")
    .description("print every setting with its meaning and its present value")
    .action(async () => {
      line.write(describeSettings(line.env));
      const config = loadConfig(line.env);
      await checkDataDir(config);
      await checkFiles(config);
    });
  addToolCommand(program);
  return program;
}

/** Runs one command and sets the exit code: 0 fine, 1 failed, 2 used wrongly, 78 settings that can't be used. */
export async function runCli(argv: readonly string[], line: CommandLine): Promise<number> {
  try {
    await createProgram(line).parseAsync([...argv], { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError && !(error instanceof InvalidArgumentError)) {
      return error.exitCode === 0 ? 0 : 2; // commander has printed its help or its complaint
    }
    const complaint = error instanceof Error ? error.message : String(error);
    process.stderr.write(`fastjoin: ${complaint}\n`);
    if (line.env["FASTJOIN_LOG_LEVEL"] === "debug") {
      process.stderr.write(`${inspect(error)}\n`);
    }
    if (error instanceof InvalidArgumentError) {
      return 2;
    }
    return error instanceof ConfigError || error instanceof FatalStart ? EXIT_FATAL : 1;
  }
}
