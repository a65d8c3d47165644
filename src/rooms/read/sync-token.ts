import { MatrixError } from "../../federation-api/matrix-error.ts";

/**
 * A client's place in the one stream, `s` and a position: behind the event of that position. History that was fetched
 * backwards has negative positions.
 */
type SyncToken = `s${bigint}`;

export function syncToken(position: bigint): SyncToken {
  return `s${position}`;
}

/** @throws MatrixError 400 M_INVALID_PARAM for what is no token of ours */
export function parseSyncToken(text: string): bigint {
  const digits = /^s(-?\d{1,18})$/.exec(text)?.[1];
  if (digits === undefined) {
    throw new MatrixError(400, "M_INVALID_PARAM", `${JSON.stringify(text)} is not a token of this server`);
  }
  return BigInt(digits);
}
