import { MatrixError } from "../federation-api/matrix-error.ts";
import { JsonSyntaxError, MAX_FOREIGN_VALUES, parseJson } from "../matrix/json.ts";
import type { JsonValue } from "../matrix/json.ts";

/**
 * Reads a body as JSON, whatever its Content-Type says, without loss of numbers: the request's signature and the
 * hashes of the events in it depend on how they were written.
 *
 * @returns undefined where there is no body
 * @throws MatrixError 400 M_NOT_JSON
 */
export function parseBody(raw: Uint8Array): JsonValue | undefined {
  if (raw.length === 0) return undefined;
  try {
    return parseJson(new TextDecoder("utf-8", { fatal: true }).decode(raw), MAX_FOREIGN_VALUES);
  } catch (error) {
    if (error instanceof JsonSyntaxError || error instanceof TypeError) {
      throw new MatrixError(400, "M_NOT_JSON", `The body is not JSON: ${error.message}`);
    }
    throw error;
  }
}
