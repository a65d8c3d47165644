import { MatrixError } from "../../federation-api/matrix-error.ts";
import { CanonicalJsonError } from "../../matrix/canonical-json.ts";
import type { Event, Pdu } from "../../matrix/event.ts";
import { MAX_FIELD_BYTES, MAX_PDU_BYTES, parsePdu } from "../../matrix/event-format.ts";
import { stringifyJson } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { hashAndSignEvent } from "../../matrix/signatures.ts";
import type { RoomsContext } from "../context.ts";

/**
 * Hashes and signs an event of ours, and holds it against the format that every other server will ask of it.
 *
 * @throws MatrixError 400 M_BAD_JSON, 413 M_TOO_LARGE
 */
export function signOwnEvent(
  unsigned: Pdu,
  rules: RoomVersionRules,
  signer: Pick<RoomsContext, "serverName" | "signingKey">,
): Event {
  const verdict = parsePdu(hashed(unsigned, rules, signer), rules);
  if (verdict.ok) {
    return verdict.event;
  }
  throw isTooLarge(unsigned)
    ? new MatrixError(413, "M_TOO_LARGE", `The event is too large: ${verdict.reason}`)
    : new MatrixError(400, "M_BAD_JSON", `The event can't be sent: ${verdict.reason}`);
}

function hashed(
  unsigned: Pdu,
  rules: RoomVersionRules,
  { serverName, signingKey }: Pick<RoomsContext, "serverName" | "signingKey">,
): Pdu {
  try {
    return hashAndSignEvent(unsigned, serverName, signingKey, rules);
  } catch (error) {
    if (error instanceof CanonicalJsonError) {
      throw new MatrixError(400, "M_BAD_JSON", `The event can't be sent: ${error.message}`);
    }
    throw error;
  }
}

/** Hash and signature take some 300 bytes more. */
function isTooLarge(pdu: Pdu): boolean {
  const longest = Math.max(...[pdu.type, pdu.state_key ?? ""].map((field) => Buffer.byteLength(field)));
  return longest > MAX_FIELD_BYTES || Buffer.byteLength(stringifyJson(pdu)) > MAX_PDU_BYTES - 400;
}
