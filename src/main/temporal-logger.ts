import { DefaultLogger, makeTelemetryFilterString, Runtime, type LogEntry } from "@temporalio/worker";
import type { Logger } from "pino";

function pinoLevel(level: LogEntry["level"]): "trace" | "debug" | "info" | "warn" | "error" {
  switch (level) {
    case "TRACE":
      return "trace";
    case "DEBUG":
      return "debug";
    case "INFO":
      return "info";
    case "WARN":
      return "warn";
    case "ERROR":
      return "error";
  }
}

function printable(meta: LogEntry["meta"]): object {
  return Object.fromEntries(
    Object.entries(meta ?? {}).map(([key, value]) => [key, typeof value === "bigint" ? String(value) : value]),
  );
}

/** Sends what Temporal's SDK and its native core log to our logger. Once a process, before the first connection. */
export function installTemporalLogger(logger: Logger): void {
  const log = logger.child({ component: "temporal" });
  Runtime.install({
    logger: new DefaultLogger("INFO", ({ level, message, meta }) => log[pinoLevel(level)](printable(meta), message)),
    telemetryOptions: { logging: { forward: {}, filter: makeTelemetryFilterString({ core: "WARN", other: "ERROR" }) } },
    // The process stops by its own rules (src/main/shutdown.ts).
    shutdownSignals: [],
  });
}
