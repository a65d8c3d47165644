import type { ServerName } from "../matrix/identifiers.ts";
import { isJsonObject } from "../matrix/json.ts";
import type { JsonObject, JsonValue } from "../matrix/json.ts";
import { MAX_INTERVAL_MS, type Backoff, type RequestPurpose } from "./backoff.ts";
import type { CallOptions } from "./client.ts";
import { BodyTooLargeError } from "../federation-api/decode-body.ts";
import type { DestinationSlots } from "./destination-slots.ts";
import { FederationFailure, isServerTrouble } from "./failures.ts";
import { isJsonFault, readSmallJson } from "./large-json.ts";
import { withinBudget, type ReadBudget } from "./read-budget.ts";
import type { Transport, TransportAnswer, TransportLimits, TransportRequest } from "./transport.ts";

export interface CallContext {
  readonly serverName: ServerName;
  readonly transport: Transport;
  readonly backoff: Backoff;
  readonly slots: DestinationSlots;
}

interface Call<T> {
  readonly request: TransportRequest;
  readonly limits: Omit<TransportLimits, "signal">;
  /** Takes the body of a good answer. */
  readonly read: (body: AsyncIterable<Uint8Array>) => Promise<T>;
  /** `other` if left out. Any failure of a transaction counts for the back-off: a good one gives no reason to refuse it. */
  readonly purpose?: RequestPurpose;
}

const MAX_ERROR_BYTES = 64 * 1024;
const MAX_REASON_LENGTH = 300;

/** The first bytes of a refusal are enough: what says why is short, a proxy's error page is not. */
async function* firstBytes(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, void> {
  let total = 0;
  for await (const chunk of body) {
    total += chunk.byteLength;
    if (total > MAX_ERROR_BYTES) throw new BodyTooLargeError(MAX_ERROR_BYTES);
    yield chunk;
  }
}

async function refusalBody(answer: TransportAnswer): Promise<JsonObject> {
  try {
    const body = await readSmallJson(firstBytes(answer.body));
    return isJsonObject(body) ? body : {};
  } catch {
    // The status has been read and says enough; what else was wrong with the answer adds nothing.
    return {};
  }
}

async function refusalOf(server: ServerName, answer: TransportAnswer): Promise<FederationFailure> {
  const body = await refusalBody(answer);
  const errcode = typeof body["errcode"] === "string" ? body["errcode"] : undefined;
  const error = typeof body["error"] === "string" ? body["error"].slice(0, MAX_REASON_LENGTH) : undefined;
  const wished = body["retry_after_ms"];
  // Nobody is left alone for longer than our own back-off would, whatever it asks for.
  const retryAfterMs = typeof wished === "number" ? Math.min(wished, MAX_INTERVAL_MS) : undefined;
  const reason = [`HTTP ${answer.status}`, errcode, error].filter((part) => part !== undefined).join(", ");
  return new FederationFailure({ kind: "refused", server, reason, status: answer.status, errcode, retryAfterMs });
}

function readAnswer<T>(
  server: ServerName,
  call: Call<T>,
  budget: ReadBudget | undefined,
): (answer: TransportAnswer) => Promise<T> {
  return async (answer) => {
    if (answer.status < 200 || answer.status > 299) throw await refusalOf(server, answer);
    try {
      return await call.read(budget === undefined ? answer.body : withinBudget(server, answer.body, budget));
    } catch (error) {
      if (!isJsonFault(error)) throw error;
      throw new FederationFailure({ kind: "bad-response", server, reason: error.message, cause: error });
    }
  };
}

function limitsOf(defaults: Omit<TransportLimits, "signal">, options: CallOptions): TransportLimits {
  const timeoutMs = options.timeoutMs ?? defaults.timeoutMs;
  return {
    timeoutMs,
    idleMs: Math.min(defaults.idleMs, timeoutMs),
    maxBytes: options.maxBytes ?? defaults.maxBytes,
    signal: options.signal,
  };
}

async function noteFailure(context: CallContext, call: Call<unknown>, failure: FederationFailure): Promise<void> {
  const { purpose = "other" } = call;
  if (isServerTrouble(failure) || purpose === "transaction") await context.backoff.failed(failure, purpose);
  // A refusal is an answer: the server is there.
  else if (failure.kind === "refused") await context.backoff.succeeded(failure.server, purpose);
}

/**
 * One call, with the server's back-off asked before and told afterwards.
 *
 * @throws FederationFailure, the reason of the caller's signal, and what `read` throws
 */
export async function callServer<T>(
  context: CallContext,
  server: ServerName,
  call: Call<T>,
  options: CallOptions = {},
): Promise<T> {
  if (server === context.serverName) {
    throw new FederationFailure({ kind: "unreachable", server, reason: "this is our own name" });
  }
  const { purpose = "other" } = call;
  if (options.ignoreBackOff !== true) await context.backoff.check(server, purpose);
  const limits = limitsOf(call.limits, options);
  const release = await context.slots.take(server, options.signal);
  try {
    const result = await context.transport.exchange(
      server,
      call.request,
      limits,
      readAnswer(server, call, options.budget),
    );
    await context.backoff.succeeded(server, purpose);
    return result;
  } catch (error) {
    if (error instanceof FederationFailure && error.server === server) await noteFailure(context, call, error);
    throw error;
  } finally {
    release();
  }
}

/** A call whose answer is small enough to be held, in the shape that `shape` makes of it. */
export function jsonCall<T>(
  request: TransportRequest,
  limits: Omit<TransportLimits, "signal">,
  shape: (answer: JsonValue) => T,
): Call<T> {
  return { request, limits, read: async (body) => shape(await readSmallJson(body)) };
}
