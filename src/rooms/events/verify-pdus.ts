import { setImmediate as nextTick } from "node:timers/promises";
import { authEventIds, originServerTsOf, prevEventIds, type Event } from "../../matrix/event.ts";
import { parsePdu, type EventTexts } from "../../matrix/event-format.ts";
import { contentHashMatches } from "../../matrix/hashes.ts";
import type { EventId, KeyId, RoomId, ServerName } from "../../matrix/identifiers.ts";
import type { JsonValue } from "../../matrix/json.ts";
import { redact } from "../../matrix/redaction.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { onlySignatureCheck, requiredSigners, verifyEventSignatures, type KeyLookup } from "../../matrix/signatures.ts";
import type { RoomsContext } from "../context.ts";
import { checkSignatures } from "./check-signatures.ts";

/**
 * A PDU that failed check 1 or 2 and is dropped. Without a key nothing is proved against it: its server may be long
 * gone. All other kinds show that the sender did not keep to the protocol.
 */
export interface DroppedPdu {
  readonly kind: "malformed" | "other-room" | "bad-signature" | "no-key";
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

/** A PDU of the right form, with what its hash and its signatures are made of. */
interface ReadPdu {
  readonly event: Event;
  readonly texts: EventTexts;
}

/** Reading and hashing are synchronous: this many are about 20 ms of work between two turns of the event loop. */
const READ_PER_TURN = 250;

/**
 * Checks 1 to 3 of a received PDU, for many at once: the format of the room version, the signatures, the content hash
 * (a mismatch leaves the redacted copy). The order of the input is kept.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
 */
export async function verifyPdus(
  ctx: RoomsContext,
  input: {
    readonly roomId: RoomId;
    readonly rules: RoomVersionRules;
    readonly pdus: readonly JsonValue[];
    /** Others are left out before their signatures are checked, and their servers' keys asked for. */
    readonly wanted?: ReadonlySet<EventId>;
  },
): Promise<VerifiedPdus> {
  const { rules, roomId, wanted } = input;
  const dropped: DroppedPdu[] = [];
  const parsed: ReadPdu[] = [];
  for (const [index, pdu] of input.pdus.entries()) {
    if (index > 0 && index % READ_PER_TURN === 0) await nextTick();
    const read = readPdu(pdu, rules, roomId);
    if ("dropped" in read) dropped.push(read.dropped);
    else if (wanted?.has(read.event.eventId) !== false) parsed.push(read);
  }
  const events = parsed.map(({ event }) => event);
  const keys = await keysOfSigners(ctx, rules, events);
  const proved = await provedBySignature(parsed, rules, keys);
  const verified: Event[] = [];
  for (const [index, { event, texts }] of parsed.entries()) {
    const verdict = proved[index] === true ? VALID : verifyEventSignatures(event.pdu, rules, event.eventId, keys);
    if (verdict.valid) {
      const intact = contentHashMatches(event.pdu, rules, texts.content);
      verified.push(intact ? event : { ...event, pdu: redact(event.pdu, rules) });
    } else {
      dropped.push({
        kind: verdict.missingKeys === undefined ? "bad-signature" : "no-key",
        eventId: event.eventId,
        reason: `signature of ${verdict.server}: ${verdict.reason}`,
      });
    }
  }
  return { events: verified, dropped };
}

const VALID = { valid: true } as const;

/** For each event whether it needs one signature only, which holds. */
async function provedBySignature(
  parsed: readonly ReadPdu[],
  rules: RoomVersionRules,
  keys: KeyLookup,
): Promise<readonly boolean[]> {
  const checks = parsed.map(({ event, texts }) => onlySignatureCheck(event, rules, keys, texts.redacted));
  const results = await checkSignatures(checks.filter((check) => check !== undefined));
  let next = 0;
  return checks.map((check) => {
    if (check === undefined) return false;
    next += 1;
    return results[next - 1] === true;
  });
}

/** Check 1, and that the event can have a place in the room. */
function readPdu(pdu: JsonValue, rules: RoomVersionRules, roomId: RoomId): ReadPdu | { readonly dropped: DroppedPdu } {
  const verdict = parsePdu(pdu, rules);
  if (!verdict.ok) return { dropped: { kind: "malformed", reason: verdict.reason } };
  const { event, texts } = verdict;
  const { eventId } = event;
  if (event.roomId !== roomId) {
    return { dropped: { kind: "other-room", eventId, reason: `it belongs to room ${event.roomId}` } };
  }
  // Possible only where the sender chooses the id; it would wait for itself.
  if (prevEventIds(event.pdu).includes(eventId) || authEventIds(event.pdu).includes(eventId)) {
    return { dropped: { kind: "malformed", eventId, reason: "it names itself as what it builds on" } };
  }
  return { event, texts };
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
