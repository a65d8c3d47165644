import type { ServerName } from "../matrix/identifiers.ts";

/** Bounds the requests that are under way to one server; the others wait in line. */
export interface DestinationSlots {
  /**
   * @returns the function that gives the slot back
   * @throws the signal's reason if it aborts while waiting
   */
  take(server: ServerName, signal?: AbortSignal): Promise<() => void>;
}

interface Line {
  taken: number;
  readonly waiting: Set<() => void>;
}

export function createDestinationSlots(perServer: number): DestinationSlots {
  const lines = new Map<ServerName, Line>();

  function release(server: ServerName, line: Line): void {
    const [next] = line.waiting;
    if (next !== undefined) {
      line.waiting.delete(next);
      next();
      return;
    }
    line.taken--;
    if (line.taken === 0) lines.delete(server);
  }

  function waitInLine(line: Line, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        line.waiting.delete(proceed);
        reject(signal?.reason as Error);
      };
      const proceed = (): void => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      };
      line.waiting.add(proceed);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  return {
    async take(server, signal) {
      signal?.throwIfAborted();
      const line = lines.get(server) ?? { taken: 0, waiting: new Set() };
      lines.set(server, line);
      if (line.taken < perServer) line.taken++;
      else await waitInLine(line, signal);
      return () => release(server, line);
    },
  };
}
