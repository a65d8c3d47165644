import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { AppserviceFailure } from "../../appservice-client/failure.ts";
import type { ApplicationService } from "../../appservice-client/registration.ts";
import {
  beginPush,
  endPush,
  introduceAppservice,
  loadPushState,
  skipTo,
  storePushBackOff,
} from "../../storage/appservice-pushes.ts";
import { openSessionLocks, type SessionLocks } from "../../storage/session-locks.ts";
import { currentStreamPosition, listenForStream } from "../../storage/streams.ts";
import { timeLeft } from "../../storage/time-left.ts";
import type { Appservices, RoomsContext } from "../context.ts";
import { atStep } from "../failpoints.ts";
import { createWakeUp, type WakeUp } from "../wake-up.ts";
import { nextTransaction } from "./next-transaction.ts";

export interface AppservicePushes {
  /** Begins no new transaction, gives those under way a moment to be acknowledged, and aborts the rest. */
  stop(): Promise<void>;
}

interface AppservicePushesOptions {
  /** The first wait after a failure, in milliseconds (1,000); each further one is twice as long. */
  readonly firstRetryMs?: number;
  /** The longest wait (300,000). */
  readonly longestRetryMs?: number;
  /** How long `stop` waits for acknowledgements (5,000). */
  readonly drainMs?: number;
}

/** As a process may die without a word, each one looks after the others' work now and then. */
const LOOK_ROUND_EVERY_MS = 30_000;
/** Another process may have lifted a back-off, or may have died with the lock in its hand. */
const LOOK_AT_OTHERS_EVERY_MS = 5_000;
const PUSH_AT_MOST_EVERY_MS = 20;

interface Pushes {
  readonly ctx: RoomsContext;
  readonly appservices: Appservices;
  readonly locks: SessionLocks;
  readonly firstRetryMs: number;
  readonly longestRetryMs: number;
  readonly stopping: AbortController;
  readonly aborting: AbortController;
}

/** @returns whether there may be more to push at once */
async function pushNext(pushes: Pushes, service: ApplicationService): Promise<boolean> {
  const { ctx, appservices } = pushes;
  const { pool } = ctx.database;
  const state = await loadPushState(pool, service.id);
  if (state === undefined) {
    await introduceAppservice(pool, service.id);
    return true;
  }
  if (state.begun !== undefined) {
    const { signal } = pushes.aborting;
    const { begun } = state;
    await atStep(ctx, "push to an application service", () =>
      appservices.client.pushTransaction(service, begun, { signal }),
    );
    await atStep(ctx, "end a push", () => endPush(pool, service.id, begun.txnId));
    if (state.backOff !== undefined) ctx.logger.info({ service: service.id }, "an application service works again");
    return true;
  }
  const { body, upTo, more } = await nextTransaction(ctx, service, state.place);
  if (body !== undefined) {
    const push = { txnId: crypto.randomUUID(), body, upTo };
    await atStep(ctx, "begin a push", () => beginPush(pool, service.id, state.place, push));
    return true;
  }
  await skipTo(pool, service.id, state.place, upTo);
  return more;
}

/** @returns milliseconds that a service which failed is left alone */
async function backOff(pushes: Pushes, { id }: ApplicationService, failure: AppserviceFailure): Promise<number> {
  const { ctx, firstRetryMs, longestRetryMs } = pushes;
  const before = (await loadPushState(ctx.database.pool, id))?.backOff;
  const retryIntervalMs = Math.min(longestRetryMs, before === undefined ? firstRetryMs : before.retryIntervalMs * 2);
  const { reason } = failure;
  const level = before === undefined ? "warn" : "info";
  ctx.logger[level]({ service: id, reason, retryIntervalMs }, "an application service does not take our events");
  const now = ctx.now();
  await storePushBackOff(ctx.database.pool, id, {
    failingSince: before?.failingSince ?? now,
    retryAt: now + retryIntervalMs,
    retryIntervalMs,
    lastError: reason,
  });
  return retryIntervalMs;
}

/** @returns milliseconds that there is nothing to do for a service, 0 where there is */
async function leisure({ ctx }: Pushes, { id }: ApplicationService): Promise<number> {
  const { pool } = ctx.database;
  const state = await loadPushState(pool, id);
  const { retryAt = 0, retryIntervalMs = 0 } = state?.backOff ?? {};
  const left = timeLeft(retryAt, retryIntervalMs, ctx.now());
  if (left > 0) return Math.min(left, LOOK_AT_OTHERS_EVERY_MS);
  if (state === undefined || state.begun !== undefined) return 0;
  // Often another process has been faster.
  return state.place.position < (await currentStreamPosition(pool)) ? 0 : LOOK_ROUND_EVERY_MS;
}

/** Pushes all there is. @returns milliseconds until the next look, if nothing rings before */
async function pushAll(pushes: Pushes, service: ApplicationService): Promise<number> {
  const { stopping, aborting } = pushes;
  const wait = await leisure(pushes, service);
  if (wait > 0) return wait;
  const unlock = await pushes.locks.tryLock(service.id);
  if (unlock === undefined) return LOOK_AT_OTHERS_EVERY_MS;
  try {
    while (!stopping.signal.aborted && (await pushNext(pushes, service)));
    return LOOK_ROUND_EVERY_MS;
  } catch (error) {
    if (aborting.signal.aborted || !(error instanceof AppserviceFailure)) throw error;
    return Math.min(await backOff(pushes, service, error), LOOK_AT_OTHERS_EVERY_MS);
  } finally {
    await unlock();
  }
}

async function keepPushing(pushes: Pushes, service: ApplicationService, bell: WakeUp): Promise<void> {
  const { ctx, stopping, aborting } = pushes;
  while (!stopping.signal.aborted) {
    let wait = LOOK_AT_OTHERS_EVERY_MS;
    try {
      wait = await pushAll(pushes, service);
    } catch (error) {
      if (!aborting.signal.aborted) ctx.logger.error({ err: error, service: service.id }, "could not push events");
    }
    // What comes in quick succession goes together.
    await sleep(PUSH_AT_MOST_EVERY_MS);
    if (!stopping.signal.aborted) await bell.sleep(wait);
  }
}

async function keepListening({ ctx, stopping }: Pushes, ring: () => void): Promise<void> {
  const onError = (error: unknown): void => ctx.logger.warn({ err: error }, "the pushes hear of no new events");
  let stopListening: (() => Promise<void>) | undefined;
  while (stopListening === undefined && !stopping.signal.aborted) {
    try {
      stopListening = await listenForStream(ctx.database, ring, { onError });
    } catch (error) {
      onError(error);
      await sleep(LOOK_AT_OTHERS_EVERY_MS, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  }
  if (!stopping.signal.aborted) {
    await new Promise((resolve) => stopping.signal.addEventListener("abort", resolve, { once: true }));
  }
  await stopListening?.();
}

/**
 * Pushes events to the application services that have an address: to each in the order of the stream, up to 100 a
 * transaction, under an id and with a content that are stored before the first attempt, until it is acknowledged. A
 * service that fails holds up nobody but itself, and what it misses is a place in the stream. One process pushes to a
 * service at a time.
 *
 * @see https://spec.matrix.org/v1.19/application-service-api/#pushing-events
 */
export function startAppservicePushes(ctx: RoomsContext, options: AppservicePushesOptions = {}): AppservicePushes {
  const { appservices } = ctx;
  const services = (appservices?.services ?? []).filter(({ url }) => url !== null);
  if (appservices === undefined || services.length === 0) return { stop: async () => {} };
  const aborting = new AbortController();
  // Each request under way listens to it: many are no leak.
  setMaxListeners(0, aborting.signal);
  const pushes: Pushes = {
    ctx,
    appservices,
    locks: openSessionLocks(ctx.database, "appservices"),
    firstRetryMs: options.firstRetryMs ?? 1_000,
    longestRetryMs: options.longestRetryMs ?? 300_000,
    stopping: new AbortController(),
    aborting,
  };
  const bells = services.map(() => createWakeUp());
  const ring = (): void => bells.forEach((bell) => bell.ring());
  const listening = keepListening(pushes, ring);
  const pushing = Promise.all(
    services.map((service, index) => keepPushing(pushes, service, bells[index] ?? createWakeUp())),
  );
  return {
    async stop() {
      pushes.stopping.abort();
      ring();
      await Promise.race([pushing, sleep(options.drainMs ?? 5_000, undefined, { ref: false })]);
      aborting.abort(new Error("the pushes to application services stop"));
      await Promise.all([pushing, listening]);
      await pushes.locks.close();
    },
  };
}
