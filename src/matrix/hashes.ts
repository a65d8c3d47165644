import { createHash, hash } from "node:crypto";

import { canonicalJsonWithout, canonicalMember, forEachCanonicalMember } from "./canonical-json.ts";
import type { CanonicalJsonMode } from "./canonical-json.ts";
import type { Pdu } from "./event.ts";
import type { EventId } from "./identifiers.ts";
import type { JsonObject } from "./json.ts";
import { redact, redactedContent, survivesRedaction } from "./redaction.ts";
import type { RoomVersionRules } from "./room-versions.ts";

const UNSIGNED = new Set(["unsigned"]);
const NOT_IN_CONTENT_HASH = new Set(["unsigned", "signatures", "hashes"]);
/** Redaction has taken `unsigned` and `age_ts` away already. */
const NOT_IN_REDACTED_TEXT = new Set(["signatures"]);

/** How a room version writes the JSON that it hashes and signs. */
export function canonicalModeOf(rules: RoomVersionRules): CanonicalJsonMode {
  return rules.strictCanonicalJson ? "strict" : "lax";
}

/** Unpadded base64, standard alphabet, of a SHA-256 hash. */
export function sha256Base64(text: string): string {
  return unpadded(hash("sha256", text, "base64"));
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
  return sha256Base64(contentText(pdu, rules));
}

/** What {@link contentHash} is the hash of. */
export function contentText(pdu: JsonObject, rules: RoomVersionRules): string {
  return canonicalJsonWithout(pdu, NOT_IN_CONTENT_HASH, canonicalModeOf(rules));
}

/**
 * False where the event claims no hash. A mismatch means: keep the redacted copy.
 *
 * @param text the event's {@link contentText}, where the caller has it
 */
export function contentHashMatches(pdu: Pdu, rules: RoomVersionRules, text = contentText(pdu, rules)): boolean {
  const claimed = pdu.hashes?.sha256;
  if (typeof claimed !== "string") return false;
  const actual = sha256Base64(text);
  // As bytes, since padding and the unused bits of the last character are nobody's business.
  return claimed === actual || Buffer.from(claimed, "base64").equals(Buffer.from(actual, "base64"));
}

/**
 * What the reference hash and the signatures are made of: the redacted event, the same for an event and its redacted
 * copy.
 *
 * @throws {CanonicalJsonError} where the event has no canonical form.
 * @see https://spec.matrix.org/v1.19/server-server-api/#calculating-the-reference-hash-for-an-event
 */
export function redactedText(pdu: Pdu, rules: RoomVersionRules): string {
  return canonicalJsonWithout(redact(pdu, rules), NOT_IN_REDACTED_TEXT, canonicalModeOf(rules));
}

/** What an event's hash, id and signatures are made of. */
export interface EventTexts {
  /** {@link contentText} */
  readonly content: string;
  /** {@link redactedText} */
  readonly redacted: string;
  /** The canonical members `hashes` and `signatures`. */
  readonly proofs: string;
}

/**
 * All of its texts at once, for most of their members are the same.
 *
 * @param pdu whose content is an object
 * @throws {CanonicalJsonError} where the event has no canonical form.
 */
export function eventTexts(pdu: Pdu, rules: RoomVersionRules): EventTexts {
  const mode = canonicalModeOf(rules);
  let content = "";
  let redacted = "";
  let proofs = "";
  forEachCanonicalMember(pdu, UNSIGNED, mode, (key, text) => {
    if (key === "signatures") {
      proofs += "," + text;
      return;
    }
    if (key === "hashes") proofs += "," + text;
    else content += (content === "" ? "{" : ",") + text;
    if (!survivesRedaction(key, rules)) return;
    const left = key === "content" ? canonicalMember(key, redactedContent(pdu, rules), mode) : text;
    redacted += (redacted === "" ? "{" : ",") + left;
  });
  return { content: content + "}", redacted: redacted + "}", proofs };
}

/**
 * The hash over the redacted event: 32 bytes.
 *
 * @throws {CanonicalJsonError} where the event has no canonical form.
 */
export function referenceHash(pdu: Pdu, rules: RoomVersionRules): Buffer {
  return createHash("sha256").update(redactedText(pdu, rules), "utf8").digest();
}

/**
 * v1–v2: the sender's choice, `event_id` of the PDU; v3: the reference hash in base64; v4 on: URL-safe.
 *
 * @param text the event's {@link redactedText}, where the caller has it
 * @see https://spec.matrix.org/v1.19/rooms/v4/#event-ids
 */
export function eventIdOf(pdu: Pdu, rules: RoomVersionRules, text?: string): EventId {
  switch (rules.eventIdFormat) {
    case "chosen-by-sender":
      return pdu["event_id"] as EventId;
    case "base64":
      return `$${sha256Base64(text ?? redactedText(pdu, rules))}`;
    case "url-safe-base64":
      return `$${hash("sha256", text ?? redactedText(pdu, rules), "base64url")}`;
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
