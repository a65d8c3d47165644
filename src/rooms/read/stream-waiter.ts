import type { Database } from "../../storage/database.ts";
import { currentStreamPosition, listenForStream } from "../../storage/streams.ts";

/** Lets many requests wait on one listening connection for the stream to go on. */
export interface StreamWaiter {
  /** The stream's position now. What comes after it is not missed by a later {@link StreamWaiter.past}. */
  current(): Promise<bigint>;
  /** Resolves to true once the stream is past `position`, to false after `timeoutMs`; rejects when aborted. */
  past(position: bigint, options: { readonly timeoutMs: number; readonly signal?: AbortSignal }): Promise<boolean>;
  close(): Promise<void>;
}

interface Wait {
  readonly position: bigint;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

/** Starts to listen with the first question, and again with the next one where that failed. */
export function createStreamWaiter(database: Database): StreamWaiter {
  let latest = 0n;
  let listening: Promise<() => Promise<void>> | undefined;
  const wakers = new Set<() => void>();

  const onPosition = (position: bigint): void => {
    latest = position > latest ? position : latest;
    for (const wake of wakers) {
      wake();
    }
  };
  const listen = async (): Promise<void> => {
    listening ??= listenForStream(database, onPosition);
    const attempt = listening;
    try {
      await attempt;
    } catch (error) {
      listening = listening === attempt ? undefined : listening;
      throw error;
    }
  };
  const wait = async ({ position, timeoutMs, signal }: Wait): Promise<boolean> =>
    new Promise((resolve, reject) => {
      const settle = (finish: () => void): void => {
        clearTimeout(timer);
        wakers.delete(wake);
        signal?.removeEventListener("abort", abort);
        finish();
      };
      const wake = (): void => {
        if (latest > position) {
          settle(() => resolve(true));
        }
      };
      const abort = (): void => settle(() => reject(signal?.reason));
      const timer = setTimeout(() => settle(() => resolve(false)), timeoutMs);
      wakers.add(wake);
      signal?.addEventListener("abort", abort, { once: true });
    });

  return {
    async current() {
      await listen();
      return currentStreamPosition(database.pool);
    },
    async past(position, { timeoutMs, signal }) {
      await listen();
      signal?.throwIfAborted();
      return latest > position || wait({ position, timeoutMs, signal });
    },
    async close() {
      const stop = await listening;
      listening = undefined;
      await stop?.();
    },
  };
}
