import type { JsonObject } from "../matrix/json.ts";

/** Error codes that this project answers with; the type allows others, as a server may pass on what it was told. */
type Errcode = `M_${string}` | `FASTJOIN.${string}` | `ORG.MATRIX.${string}` | (string & {});

/**
 * An expected refusal, thrown by use cases and answered by the HTTP edges as `{ errcode, error, ...extra }`.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#standard-error-response
 */
export class MatrixError extends Error {
  override readonly name = "MatrixError";
  /** The HTTP status of the answer. */
  readonly status: number;
  readonly errcode: Errcode;
  /** Further members of the answer, such as `retry_after_ms`. */
  readonly extra: JsonObject;

  constructor(status: number, errcode: Errcode, message: string, extra: JsonObject = {}) {
    super(message);
    this.status = status;
    this.errcode = errcode;
    this.extra = extra;
  }
}

/** The JSON body of the answer to a request that failed with `error`. */
export function matrixErrorBody(error: MatrixError): JsonObject {
  return { ...error.extra, errcode: error.errcode, error: error.message };
}
