import { Agent, type Dispatcher } from "undici";
import type { RoomAlias, UserId } from "../matrix/identifiers.ts";
import { stringifyJson } from "../matrix/json.ts";
import type { ApplicationService } from "./registration.ts";
import { AppserviceFailure, failureOf } from "./failure.ts";

interface CallOptions {
  readonly signal?: AbortSignal;
}

/**
 * Requests to application services, at addresses that the operator has chosen: no block list applies. A service without
 * an address is never called; all throw AppserviceFailure, or the reason of the caller's signal.
 *
 * @see https://spec.matrix.org/v1.19/application-service-api/#homeserver---application-service-api
 */
export interface AppserviceClient {
  /** Pushes a transaction; `body` is its JSON, the same for each attempt. Resolved once it is acknowledged. */
  pushTransaction(
    service: ApplicationService,
    transaction: { readonly txnId: string; readonly body: string },
    options?: CallOptions,
  ): Promise<void>;
  /** Whether the service has such a user; it makes the account before it says yes. */
  queryUser(service: ApplicationService, userId: UserId): Promise<boolean>;
  /** Whether the service has such a room; it makes the room and the alias before it says yes. */
  queryAlias(service: ApplicationService, alias: RoomAlias): Promise<boolean>;
  /** @returns how long it took, in milliseconds */
  ping(service: ApplicationService, transactionId: string | undefined): Promise<number>;
  close(): Promise<void>;
}

interface Limits {
  /** For a transaction, whose events a service may take its time to handle, in milliseconds (60,000). */
  readonly pushTimeoutMs?: number;
  /** For a question that a client waits on, in milliseconds (15,000). */
  readonly questionTimeoutMs?: number;
}

interface Request {
  readonly method: "GET" | "POST" | "PUT";
  /** Below `/_matrix/app/v1/`. */
  readonly path: string;
  readonly body?: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

const SHOWN_OF_A_BODY = 4_096;

/** Reads the answer to its end, so that the connection can be used again, and keeps how it begins. */
async function beginningOf(body: AsyncIterable<Buffer>): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of body) {
    if (text.length < SHOWN_OF_A_BODY) text += decoder.decode(chunk, { stream: true });
  }
  return text.slice(0, SHOWN_OF_A_BODY);
}

async function call(agent: Dispatcher, { url, hsToken }: ApplicationService, request: Request): Promise<void> {
  if (url === null) throw new AppserviceFailure({ kind: "unreachable", reason: "it has no address" });
  const { method, path, body, signal, timeoutMs } = request;
  const place = new URL(`${url}/_matrix/app/v1/${path}`);
  const limit = AbortSignal.timeout(timeoutMs);
  try {
    const answer = await agent.request({
      origin: place.origin,
      path: place.pathname,
      method,
      headers: {
        authorization: `Bearer ${hsToken}`,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body }),
      signal: signal === undefined ? limit : AbortSignal.any([limit, signal]),
    });
    const text = await beginningOf(answer.body);
    const { statusCode: status } = answer;
    if (status >= 200 && status < 300) return;
    throw new AppserviceFailure({ kind: "bad-status", reason: `it answered ${status}`, status, body: text });
  } catch (error) {
    signal?.throwIfAborted();
    throw failureOf(error);
  }
}

async function isKnown(answer: Promise<void>): Promise<boolean> {
  try {
    await answer;
    return true;
  } catch (error) {
    if (error instanceof AppserviceFailure && error.status === 404) return false;
    throw error;
  }
}

export function createAppserviceClient({
  pushTimeoutMs = 60_000,
  questionTimeoutMs = 15_000,
}: Limits = {}): AppserviceClient {
  const agent = new Agent({ headersTimeout: 0, bodyTimeout: 0 });
  const ask = (service: ApplicationService, path: string): Promise<boolean> =>
    isKnown(call(agent, service, { method: "GET", path, timeoutMs: questionTimeoutMs }));
  return {
    async pushTransaction(service, { txnId, body }, { signal } = {}) {
      const path = `transactions/${encodeURIComponent(txnId)}`;
      await call(agent, service, { method: "PUT", path, body, timeoutMs: pushTimeoutMs, signal });
    },
    queryUser: (service, userId) => ask(service, `users/${encodeURIComponent(userId)}`),
    queryAlias: (service, alias) => ask(service, `rooms/${encodeURIComponent(alias)}`),
    async ping(service, transactionId) {
      const began = performance.now();
      const body = stringifyJson(transactionId === undefined ? {} : { transaction_id: transactionId });
      await call(agent, service, { method: "POST", path: "ping", body, timeoutMs: questionTimeoutMs });
      return Math.round(performance.now() - began);
    },
    close: () => agent.destroy(),
  };
}
