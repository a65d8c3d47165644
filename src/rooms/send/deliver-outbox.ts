import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { MAX_TRANSACTION_PDUS } from "../../federation-api/endpoints.ts";
import type { TransactionResponse } from "../../federation-api/endpoints.ts";
import { backOffLeft } from "../../federation-client/backoff.ts";
import { FederationFailure } from "../../federation-client/failures.ts";
import type { ServerName } from "../../matrix/identifiers.ts";
import { openDestinationLocks } from "../../storage/destination-locks.ts";
import type { DestinationLocks } from "../../storage/destination-locks.ts";
import { listBackOffs, loadBackOff } from "../../storage/destinations.ts";
import { deleteOutboxBatch, keepNewestInOutbox, nextOutboxBatch, outboxDestinations } from "../../storage/outbox.ts";
import { listenForStream } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { atStep } from "../failpoints.ts";
import { createWakeUp } from "../wake-up.ts";
import type { WakeUp } from "../wake-up.ts";

export interface OutboxDelivery {
  /** Sends no new transaction, gives those under way a moment to be answered, and aborts the rest. */
  stop(): Promise<void>;
}

export interface OutboxDeliveryOptions {
  /** Servers that are sent to at the same time (20). */
  readonly destinationsAtOnce?: number;
  /** How long `stop` waits for answers, in milliseconds (5,000). */
  readonly drainMs?: number;
}

/** As a process may die without a word, each one looks after the others' work now and then. */
const LOOK_ROUND_EVERY_MS = 30_000;
const LOOK_ROUND_AT_MOST_EVERY_MS = 50;
const AFTER_OWN_TROUBLE_MS = 5_000;
const BACK_OFFS_FRESH_MS = 5_000;
/** A server that has failed for so long is sent the newest event of each room, and fetches the rest itself. */
const FAR_BEHIND_MS = 24 * 60 * 60_000;

interface Delivery {
  readonly ctx: RoomsContext;
  readonly destinationsAtOnce: number;
  readonly locks: DestinationLocks;
  readonly bell: WakeUp;
  readonly sending: Map<ServerName, Promise<void>>;
  /** Until when (ms) a server is left alone; what other processes have noted is taken over now and then. */
  readonly restingUntil: Map<ServerName, number>;
  restsReadAt: number;
  readonly stopping: AbortController;
  readonly aborting: AbortController;
}

async function readRests(delivery: Delivery): Promise<void> {
  const now = delivery.ctx.now();
  // A clock that was set back makes what was read last lie ahead, and rests of our own last for hours.
  const age = now - delivery.restsReadAt;
  if (age >= 0 && age < BACK_OFFS_FRESH_MS) return;
  for (const [server, until] of delivery.restingUntil) {
    // All but the short rests of our own making are read anew: another process may have lifted one.
    if (until <= now || until > now + AFTER_OWN_TROUBLE_MS) delivery.restingUntil.delete(server);
  }
  for (const backOff of await listBackOffs(delivery.ctx.database.pool)) {
    delivery.restingUntil.set(backOff.serverName, now + backOffLeft(backOff, now));
  }
  delivery.restsReadAt = now;
}

function logRefusedPdus(ctx: RoomsContext, destination: ServerName, response: TransactionResponse): void {
  for (const [eventId, { error }] of Object.entries(response.pdus)) {
    if (error !== undefined) ctx.logger.info({ destination, eventId, error }, "a server refused an event of ours");
  }
}

/** @returns whether there may be more */
async function sendBatch(delivery: Delivery, destination: ServerName): Promise<boolean> {
  const { ctx } = delivery;
  const { pool } = ctx.database;
  const newTxnId = crypto.randomUUID();
  const batch = await atStep(ctx, "begin a transaction", () =>
    nextOutboxBatch(pool, destination, { newTxnId, limit: MAX_TRANSACTION_PDUS }),
  );
  if (batch === undefined) return false;
  const { txnId, edus } = batch;
  const transaction = { txnId, pdus: batch.events.map((event) => event.pdu), edus };
  const options = { signal: delivery.aborting.signal };
  const response = await atStep(ctx, "send a transaction", () =>
    ctx.federation.sendTransaction(destination, transaction, options),
  );
  logRefusedPdus(ctx, destination, response);
  await atStep(ctx, "take a transaction off", () => deleteOutboxBatch(pool, destination, txnId));
  return true;
}

async function shortenBacklog(ctx: RoomsContext, destination: ServerName): Promise<void> {
  const backOff = await loadBackOff(ctx.database.pool, destination);
  if (backOff === undefined || ctx.now() - backOff.failingSince < FAR_BEHIND_MS) return;
  const dropped = await keepNewestInOutbox(ctx.database.pool, destination);
  if (dropped > 0) ctx.logger.info({ destination, dropped }, "a server that fails for long gets newest events only");
}

/** Leaves a server alone after a failure: for its back-off, or a moment if the trouble was ours. */
async function rest(delivery: Delivery, destination: ServerName, error: unknown): Promise<void> {
  const { ctx } = delivery;
  delivery.restingUntil.set(destination, ctx.now() + AFTER_OWN_TROUBLE_MS);
  if (delivery.aborting.signal.aborted) return;
  if (!(error instanceof FederationFailure)) {
    ctx.logger.error({ err: error, destination }, "could not deliver events");
    return;
  }
  ctx.logger.info({ destination, kind: error.kind, reason: error.reason }, "a server does not take our events");
  const backOff = await loadBackOff(ctx.database.pool, destination);
  const now = ctx.now();
  if (backOff !== undefined) delivery.restingUntil.set(destination, now + backOffLeft(backOff, now));
}

async function deliverTo(delivery: Delivery, destination: ServerName): Promise<void> {
  const unlock = await delivery.locks.tryLock(destination);
  if (unlock === undefined) {
    // Another process sends to it; if that dies, its lock dies too.
    delivery.restingUntil.set(destination, delivery.ctx.now() + AFTER_OWN_TROUBLE_MS);
    return;
  }
  try {
    await shortenBacklog(delivery.ctx, destination);
    while (!delivery.stopping.signal.aborted && (await sendBatch(delivery, destination)));
  } catch (error) {
    await rest(delivery, destination, error);
  } finally {
    await unlock();
  }
}

function startDelivery(delivery: Delivery, destination: ServerName): void {
  const { ctx, sending, bell } = delivery;
  const done = deliverTo(delivery, destination)
    .catch((error: unknown) => {
      delivery.restingUntil.set(destination, ctx.now() + AFTER_OWN_TROUBLE_MS);
      ctx.logger.error({ err: error, destination }, "could not deliver events");
    })
    .finally(() => {
      sending.delete(destination);
      // A row may have come between the last look at the list and now; and another server may wait for the place.
      bell.ring();
    });
  sending.set(destination, done);
}

/** Starts what can be started. @returns milliseconds until the next look, if nothing rings before */
async function lookRound(delivery: Delivery): Promise<number> {
  const { ctx, sending, restingUntil } = delivery;
  const destinations = await outboxDestinations(ctx.database.pool);
  await readRests(delivery);
  let wait = LOOK_ROUND_EVERY_MS;
  for (const destination of destinations) {
    if (sending.has(destination)) continue;
    const left = (restingUntil.get(destination) ?? 0) - ctx.now();
    if (left > 0) wait = Math.min(wait, left);
    else if (sending.size < delivery.destinationsAtOnce) startDelivery(delivery, destination);
  }
  return wait;
}

async function keepDelivering(delivery: Delivery): Promise<void> {
  const { ctx, bell, stopping } = delivery;
  while (!stopping.signal.aborted) {
    let wait = AFTER_OWN_TROUBLE_MS;
    try {
      wait = await lookRound(delivery);
    } catch (error) {
      ctx.logger.error({ err: error }, "could not look into the outbox");
    }
    await sleep(LOOK_ROUND_AT_MOST_EVERY_MS);
    if (!stopping.signal.aborted) await bell.sleep(wait);
  }
}

async function keepListening(delivery: Delivery): Promise<void> {
  const { ctx, bell, stopping } = delivery;
  const onError = (error: unknown): void => ctx.logger.warn({ err: error }, "the outbox hears of no new events");
  let stopListening: (() => Promise<void>) | undefined;
  while (stopListening === undefined && !stopping.signal.aborted) {
    try {
      stopListening = await listenForStream(ctx.database, () => bell.ring(), { onError });
    } catch (error) {
      onError(error);
      await sleep(AFTER_OWN_TROUBLE_MS, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  }
  if (!stopping.signal.aborted) {
    await new Promise((resolve) => stopping.signal.addEventListener("abort", resolve, { once: true }));
  }
  await stopListening?.();
}

/**
 * Sends what stands in the outbox: for each server in order, up to 50 events and 100 EDUs a transaction, under an id
 * that is stored before the first attempt, until the server has acknowledged it. A server that fails holds up nobody
 * but itself. Woken by new rows, by the end of a back-off, and by a server that talks to us.
 */
export function startOutboxDelivery(ctx: RoomsContext, options: OutboxDeliveryOptions = {}): OutboxDelivery {
  const aborting = new AbortController();
  // Each request under way listens to it: many are no leak.
  setMaxListeners(0, aborting.signal);
  const delivery: Delivery = {
    ctx,
    destinationsAtOnce: options.destinationsAtOnce ?? 20,
    locks: openDestinationLocks(ctx.database),
    bell: createWakeUp(),
    sending: new Map(),
    restingUntil: new Map(),
    restsReadAt: 0,
    stopping: new AbortController(),
    aborting,
  };
  const forgetAlive = ctx.federation.onServerAlive((server) => {
    delivery.restingUntil.delete(server);
    delivery.bell.ring();
  });
  const loops = Promise.all([keepDelivering(delivery), keepListening(delivery)]);

  return {
    async stop() {
      forgetAlive();
      delivery.stopping.abort();
      delivery.bell.ring();
      await loops;
      const drained = Promise.all(delivery.sending.values());
      const patience = sleep(options.drainMs ?? 5_000, undefined, { ref: false });
      await Promise.race([drained, patience]);
      delivery.aborting.abort(new Error("the outbox delivery stops"));
      await drained;
      await delivery.locks.close();
    },
  };
}
