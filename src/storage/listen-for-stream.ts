import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { Database } from "./database.ts";
import { STREAM_CHANNEL, currentStreamPosition } from "./streams.ts";

export interface ListenOptions {
  /** Told of each lost connection; listening goes on by itself. */
  readonly onError?: (error: unknown) => void;
  readonly reconnectDelayMs?: number;
}

const RECONNECT_DELAY_MS = 500;

/**
 * Tells the newest position whenever a commit has taken one, from any process. After a lost connection the position
 * of the time of reconnecting is told, so that nothing is missed; positions may be told twice.
 *
 * @returns a function that ends it; resolved once the first connection listens
 */
export async function listenForStream(
  database: Database,
  onPosition: (position: bigint) => void,
  options: ListenOptions = {},
): Promise<() => Promise<void>> {
  const stopping = new AbortController();
  const first = await connect(database, onPosition);
  const loop = keepListening(first);

  async function keepListening(connected: Listener): Promise<void> {
    let listener: Listener | undefined = connected;
    while (!stopping.signal.aborted) {
      if (listener) options.onError?.(await listener.lost(stopping.signal));
      if (stopping.signal.aborted) break;
      await sleep(options.reconnectDelayMs ?? RECONNECT_DELAY_MS, undefined, { signal: stopping.signal }).catch(
        () => undefined,
      );
      if (stopping.signal.aborted) break;
      listener = await connect(database, onPosition).catch((error: unknown) => {
        options.onError?.(error);
        return undefined;
      });
    }
    await listener?.end();
  }

  return async () => {
    stopping.abort();
    await loop;
  };
}
