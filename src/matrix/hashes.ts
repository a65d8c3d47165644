import { createHash } from "node:crypto";

import { canonicalJsonWithout } from "./canonical-json.ts";
import type { CanonicalJsonMode } from "./canonical-json.ts";
import type { Pdu } from "./event.ts";
import type { EventId } from "./identifiers.ts";
import { redact } from "./redaction.ts";
import type { RoomVersionRules } from "./room-versions.ts";

const NOT_IN_CONTENT_HASH = new Set(["unsigned", "signatures", "hashes"]);
/** Redaction has taken `unsigned` and `age_ts` away already. */
const NOT_IN_REFERENCE_HASH = new Set(["signatures"]);

/** How a room version writes the JSON that it hashes and signs. */
export function canonicalModeOf(rules: RoomVersionRules): CanonicalJsonMode {
  return rules.strictCanonicalJson ? "strict" : "lax";
}

/** Unpadded base64, standard alphabet, of a SHA-256 hash. */
export function sha256Base64(text: string): string {
  return unpadded(sha256(text).toString("base64"));
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text, "utf8").digest();
}

function unpadded(base64: string): string {
  return base64.replace(/=+$/, "");
}

/**
 * The hash over the whole event, which shows whether its content was redacted or changed.
 *
 * @throws {CanonicalJsonError} where the event has no canonical form.
 * @see https://spec.matrix.org/v1.19/server-server-api/#calculating-the-content-hash-for-an-event
 */
export function contentHash(pdu: Pdu, rules: RoomVersionRules): string {
  return sha256Base64(canonicalJsonWithout(pdu, NOT_IN_CONTENT_HASH, canonicalModeOf(rules)));
}

/** False where the event claims no hash. A mismatch means: keep the redacted copy. */
export function contentHashMatches(pdu: Pdu, rules: RoomVersionRules): boolean {
  const claimed = pdu.hashes?.sha256;
  if (typeof claimed !== "string") return false;
  // As bytes, since padding and the unused bits of the last character are nobody's business.
  return Buffer.from(claimed, "base64").equals(Buffer.from(contentHash(pdu, rules), "base64"));
}

/**
 * The hash over the redacted event, the same for an event and its redacted copy: 32 bytes.
 *
 * @throws {CanonicalJsonError} where the event has no canonical form.
 * @see https://spec.matrix.org/v1.19/server-server-api/#calculating-the-reference-hash-for-an-event
 */
export function referenceHash(pdu: Pdu, rules: RoomVersionRules): Buffer {
  return sha256(canonicalJsonWithout(redact(pdu, rules), NOT_IN_REFERENCE_HASH, canonicalModeOf(rules)));
}

/**
 * v1–v2: the sender's choice, `event_id` of the PDU; v3: the reference hash in base64; v4 on: URL-safe.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v4/#event-ids
 */
export function eventIdOf(pdu: Pdu, rules: RoomVersionRules): EventId {
  switch (rules.eventIdFormat) {
    case "chosen-by-sender":
      return pdu["event_id"] as EventId;
    case "base64":
      return `$${unpadded(referenceHash(pdu, rules).toString("base64"))}`;
    case "url-safe-base64":
      return `$${referenceHash(pdu, rules).toString("base64url")}`;
  }
}

/**
 * The tie-breaker of state resolution in room version 1: SHA-1 of the id, in hexadecimal.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v1/#state-resolution
 */
export function sha1OfEventId(eventId: EventId): string {
  return createHash("sha1").update(eventId, "utf8").digest("hex");
}
