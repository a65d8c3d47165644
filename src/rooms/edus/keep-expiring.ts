import { setTimeout as sleep } from "node:timers/promises";
import type { ReadContext } from "../read/full-state-wait.ts";
import { endPresence } from "./end-presence.ts";
import { expireTyping } from "./typing.ts";

interface Expiring {
  /** Waits for what is under way. */
  stop(): Promise<void>;
}

const LOOK_EVERY_MS = 10_000;
const LOOK_AT_MOST_EVERY_MS = 250;

/**
 * Ends typing and presence in time, which clients that wait are then told of. Each process does so for all: who comes
 * first does the work.
 */
export function startExpiring(ctx: ReadContext): Expiring {
  const stopping = new AbortController();
  const { signal } = stopping;
  let presenceAt = 0;

  async function look(): Promise<number> {
    const next = await expireTyping(ctx);
    const now = ctx.now();
    // A clock that was set back would leave everyone online for as long as it was ahead.
    if (now >= presenceAt || now < presenceAt - LOOK_EVERY_MS) {
      await endPresence(ctx);
      presenceAt = now + LOOK_EVERY_MS;
    }
    return Math.max(0, Math.min(LOOK_EVERY_MS, (next ?? Number.POSITIVE_INFINITY) - now));
  }

  async function keepLooking(): Promise<void> {
    while (!signal.aborted) {
      try {
        // Read before the look: whoever begins to type during it is not missed.
        const position = await ctx.stream.current();
        const timeoutMs = await look();
        await sleep(LOOK_AT_MOST_EVERY_MS, undefined, { signal });
        await ctx.stream.past(position, { timeoutMs, signal });
      } catch (error) {
        if (signal.aborted) return;
        ctx.logger.warn({ err: error }, "could not end typing and presence; tried again");
        await sleep(LOOK_EVERY_MS, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  const done = keepLooking();
  return {
    async stop() {
      stopping.abort();
      await done;
    },
  };
}
