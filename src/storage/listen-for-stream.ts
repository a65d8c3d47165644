import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { Database } from "./database.ts";
import { STREAM_CHANNEL, currentStreamPosition } from "./streams.ts";

export interface ListenOptions {
  /** Told of each lost or refused connection; listening goes on by itself. */
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
  const first = await listen(database, onPosition);
  const loop = keepListening(first);

  async function keepListening(connected: pg.Client): Promise<void> {
    let client: pg.Client | undefined = connected;
    while (!stopping.signal.aborted) {
      if (client) await connectionLost(client, stopping.signal, options.onError);
      if (stopping.signal.aborted) break;
      const delay = options.reconnectDelayMs ?? RECONNECT_DELAY_MS;
      await sleep(delay, undefined, { signal: stopping.signal }).catch(() => undefined);
      client = await listen(database, onPosition).catch((error: unknown) => {
        options.onError?.(error);
        return undefined;
      });
    }
    await client?.end();
  }

  return async () => {
    stopping.abort();
    await loop;
  };
}

async function listen(database: Database, onPosition: (position: bigint) => void): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: database.url, application_name: "fastjoin listen", keepAlive: true });
  // A client that has failed also says so by "end"; without a listener the error would end the process.
  client.on("error", () => undefined);
  client.on("notification", ({ payload }) => {
    if (payload !== undefined) onPosition(BigInt(payload));
  });
  try {
    await client.connect();
    await client.query(`LISTEN ${STREAM_CHANNEL}`);
    onPosition(await currentStreamPosition(client));
    return client;
  } catch (error) {
    await client.end().catch(() => undefined);
    throw error;
  }
}

/** Resolved when the connection has ended, or when we are to stop. */
async function connectionLost(
  client: pg.Client,
  signal: AbortSignal,
  onError: ListenOptions["onError"],
): Promise<void> {
  try {
    await once(client, "end", { signal });
    onError?.(new Error("the connection that listens for stream positions was lost"));
  } catch (error) {
    // `once` rejects when we are to stop, and for an error of the connection, which "end" always follows.
    if (!signal.aborted) onError?.(error);
  }
}
