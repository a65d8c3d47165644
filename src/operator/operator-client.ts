import { request } from "undici";
import { z } from "zod";
import { OPERATOR_PATH } from "./operator-path.ts";

/** A refusal by the sidecar, or its absence, in words for the command line. */
export class OperatorFailure extends Error {
  override readonly name = "OperatorFailure";
  readonly code = "operator.failure";
}

export interface OperatorClient {
  get(path: string): Promise<unknown>;
  post(path: string, body: object): Promise<unknown>;
}

const errorBody = z.object({ errcode: z.string(), error: z.string() });

/** Joins of large rooms from slow residents take their time. */
const ANSWER_WITHIN_MS = 300_000;

/** Talks to the operator API of a running sidecar. */
export function createOperatorClient(baseUrl: string, token: string): OperatorClient {
  async function call(method: "GET" | "POST", path: string, body?: object): Promise<unknown> {
    const url = `${baseUrl}${OPERATOR_PATH}${path}`;
    const answer = await request(url, {
      method,
      headers: { authorization: `Bearer ${token}`, ...(body && { "content-type": "application/json" }) },
      body: body === undefined ? null : JSON.stringify(body),
      headersTimeout: ANSWER_WITHIN_MS,
    }).catch((error: unknown) => {
      const cause = error instanceof Error ? error.message || error.name : String(error);
      throw new OperatorFailure(`no sidecar answers at ${baseUrl}: ${cause}`, { cause: error });
    });
    const text = await answer.body.text();
    if (answer.statusCode < 300) {
      return JSON.parse(text);
    }
    const told = errorBody.safeParse(parseOrUndefined(text));
    throw new OperatorFailure(
      told.success ? `${told.data.error} (${told.data.errcode})` : `${url} answered HTTP ${answer.statusCode}`,
    );
  }
  return { get: (path) => call("GET", path), post: (path, body) => call("POST", path, body) };
}

function parseOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // not the sidecar's own answer: some proxy's page
  }
}
