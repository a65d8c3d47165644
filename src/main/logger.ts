import { destination, pino, type Logger } from "pino";

/** JSON lines on standard output; what a process logged before it died is never lost in a buffer. */
export function createLogger(level: string, bindings: Readonly<Record<string, string>> = {}): Logger {
  return pino({ level, base: { pid: process.pid, ...bindings } }, destination({ fd: 1, sync: true }));
}
