import { setImmediate as nextTick } from "node:timers/promises";
import { authEventIds, originServerTsOf, prevEventIds, type Event, type Pdu } from "../../matrix/event.ts";
import { parsePdu } from "../../matrix/event-format.ts";
import { canonicalJsonWithout } from "../../matrix/canonical-json.ts";
import { canonicalModeOf, contentHashMatches } from "../../matrix/hashes.ts";
import type { EventId, KeyId, RoomId, ServerName } from "../../matrix/identifiers.ts";
import type { JsonValue } from "../../matrix/json.ts";
import { redact } from "../../matrix/redaction.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { onlySignatureCheck, requiredSigners, verifyEventSignatures, type KeyLookup } from "../../matrix/signatures.ts";
import type { RoomsContext } from "../context.ts";
import { checkSignatures } from "./check-signatures.ts";

/**
 * A PDU that failed check 1 or 2, or can't be judged, and is dropped. Without a key, or above a hole in its auth chain,
 * nothing is proved against it: its server may be long gone. All other kinds show that the sender did not keep to the
 * protocol.
 */
export interface DroppedPdu {
  readonly kind: "malformed" | "other-room" | "bad-signature" | "ring" | "no-key" | "hole";
  /** Known only when the PDU could be read. */
  readonly eventId?: EventId;
  readonly reason: string;
}

/** An event from another server that passed checks 1 to 3. */
export interface VerifiedEvent {
  readonly origin: ServerName;
  readonly rules: RoomVersionRules;
  readonly event: Event;
}

interface VerifiedPdus {
  readonly events: readonly Event[];
  readonly dropped: readonly DroppedPdu[];
}

/** A PDU of the right form, with what its signatures are made of. */
interface ReadPdu {
  readonly event: Event;
  readonly redactedText: string;
  /** Check 3. Made at once, so that the text that was hashed is not held while keys are looked for. */
  readonly contentHashMatches: boolean;
}

/** Reading and hashing are synchronous: this many are about 20 ms of work between two turns of the event loop. */
const READ_PER_TURN = 250;

interface PdusToVerify {
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  readonly pdus: readonly JsonValue[];
  /** Others are left out before their signatures are checked, and their servers' keys asked for. */
  readonly wanted?: ReadonlySet<EventId>;
  /** Told of each PDU as soon as it is read, in their order; undefined: it has not the form of an event. */
  readonly onRead?: (event: Event | undefined, index: number) => void;
}

/**
 * Checks 1 to 3 of a received PDU, for many at once: the format of the room version, the signatures, the content hash
 * (a mismatch leaves the redacted copy). The order of the input is kept.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
 */
export async function verifyPdus(ctx: RoomsContext, input: PdusToVerify): Promise<VerifiedPdus> {
  const { rules, roomId } = input;
  const { parsed, dropped } = await readPdus(input);
  const keys = await keysOfSigners(
    ctx,
    rules,
    parsed.map(({ event }) => event),
  );
  const proved = await provedBySignature(parsed, rules, keys);
  const events: Event[] = [];
  const stripped: EventId[] = [];
  for (const [index, read] of parsed.entries()) {
    const { event } = read;
    const verdict = proved[index] === true ? VALID : verifyEventSignatures(event.pdu, rules, event.eventId, keys);
    if (verdict.valid) {
      const kept = withProvedContent(read, rules);
      events.push(kept.event);
      if (kept.stripped) stripped.push(event.eventId);
    } else {
      dropped.push({
        kind: verdict.missingKeys === undefined ? "bad-signature" : "no-key",
        eventId: event.eventId,
        reason: `signature of ${verdict.server}: ${verdict.reason}`,
      });
    }
  }
  reportStripped(ctx, roomId, stripped);
  return { events, dropped };
}

const VALID = { valid: true } as const;

/** Check 1. */
async function readPdus({ roomId, rules, pdus, wanted, onRead }: PdusToVerify): Promise<{
  readonly parsed: readonly ReadPdu[];
  readonly dropped: DroppedPdu[];
}> {
  const dropped: DroppedPdu[] = [];
  const parsed: ReadPdu[] = [];
  for (const [index, pdu] of pdus.entries()) {
    if (index > 0 && index % READ_PER_TURN === 0) await nextTick();
    const read = readPdu(pdu, rules, roomId);
    onRead?.(read.event, index);
    if ("dropped" in read) dropped.push(read.dropped);
    else if (wanted?.has(read.event.eventId) !== false) parsed.push(read);
  }
  return { parsed, dropped };
}

/** For each event whether it needs one signature only, which holds. */
async function provedBySignature(
  parsed: readonly ReadPdu[],
  rules: RoomVersionRules,
  keys: KeyLookup,
): Promise<readonly boolean[]> {
  const checks = parsed.map(({ event, redactedText }) => onlySignatureCheck(event, rules, keys, redactedText));
  const results = await checkSignatures(checks.filter((check) => check !== undefined));
  let next = 0;
  return checks.map((check) => {
    if (check === undefined) return false;
    next += 1;
    return results[next - 1] === true;
  });
}

/** A copy that is redacted already is an honest one; in any other somebody has changed the content. */
function withProvedContent(
  { event, contentHashMatches: isProved }: ReadPdu,
  rules: RoomVersionRules,
): { readonly event: Event; readonly stripped: boolean } {
  if (isProved) return { event, stripped: false };
  const pdu = redact(event.pdu, rules);
  return { event: { ...event, pdu }, stripped: textOf(pdu, rules) !== textOf(event.pdu, rules) };
}

function textOf(pdu: Pdu, rules: RoomVersionRules): string {
  return canonicalJsonWithout(pdu, new Set(), canonicalModeOf(rules));
}

/** A log line names so many. */
const NAMED = 20;

function reportStripped(ctx: RoomsContext, roomId: RoomId, eventIds: readonly EventId[]): void {
  if (eventIds.length === 0) return;
  const reason = "the content is not what was hashed";
  const told = { roomId, count: eventIds.length, eventIds: eventIds.slice(0, NAMED), reason };
  ctx.logger.warn(told, "events are kept without their content");
}

/** What it complains of may be a number of a million digits. */
const MAX_REASON_LENGTH = 300;

/** Whoever passes an event on may write there whatever they like, and as much; nothing of it is proved, or used. */
function withoutUnsigned(event: Event): Event {
  if (event.pdu["unsigned"] === undefined) return event;
  const { unsigned: _unsigned, ...pdu } = event.pdu;
  return { ...event, pdu: pdu as Pdu };
}

/** An event that has no place in the room, where it is one. */
interface DroppedAtOnce {
  readonly event: Event | undefined;
  readonly dropped: DroppedPdu;
}

/** Checks 1 and 3, and that the event can have a place in the room. */
function readPdu(pdu: JsonValue, rules: RoomVersionRules, roomId: RoomId): ReadPdu | DroppedAtOnce {
  const verdict = parsePdu(pdu, rules);
  if (!verdict.ok) {
    return { event: undefined, dropped: { kind: "malformed", reason: verdict.reason.slice(0, MAX_REASON_LENGTH) } };
  }
  const event = withoutUnsigned(verdict.event);
  const { eventId } = event;
  if (event.roomId !== roomId) {
    return { event, dropped: { kind: "other-room", eventId, reason: `it belongs to room ${event.roomId}` } };
  }
  // Possible only where the sender chooses the id; it would wait for itself.
  if (prevEventIds(event.pdu).includes(eventId) || authEventIds(event.pdu).includes(eventId)) {
    return { event, dropped: { kind: "malformed", eventId, reason: "it names itself as what it builds on" } };
  }
  const { content, redacted } = verdict.texts;
  return { event, redactedText: redacted, contentHashMatches: contentHashMatches(event.pdu, rules, content) };
}

async function keysOfSigners(ctx: RoomsContext, rules: RoomVersionRules, events: readonly Event[]): Promise<KeyLookup> {
  const wanted = new Map<ServerName, Set<KeyId>>();
  let latest = 0;
  for (const event of events) {
    latest = Math.max(latest, originServerTsOf(event.pdu));
    for (const server of requiredSigners(event.pdu, rules, event.eventId)) {
      const keyIds = wanted.get(server) ?? new Set<KeyId>();
      for (const keyId of Object.keys(event.pdu.signatures?.[server] ?? {})) keyIds.add(keyId as KeyId);
      wanted.set(server, keyIds);
    }
  }
  // A key must be valid at the event's time, yet an event's time may lie: never ask for validity in the future.
  const ours = wanted.delete(ctx.serverName) ? ctx.signingKey : undefined;
  const others = await ctx.keyRing.keysFor(wanted, rules.enforceKeyValidity ? Math.min(latest, ctx.now()) : undefined);
  if (ours === undefined) return others;
  const own = { publicKey: ours.publicKey, validUntilTs: Number.MAX_SAFE_INTEGER };
  return (server, keyId) => (server === ctx.serverName && keyId === ours.keyId ? own : others(server, keyId));
}
