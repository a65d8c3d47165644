import fc from "fast-check";
import type { Event } from "../../src/matrix/event.ts";
import { parsePdu } from "../../src/matrix/event-format.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";
import { ROOM_VERSIONS } from "../../src/matrix/room-versions.ts";
import type { RoomVersionRules } from "../../src/matrix/room-versions.ts";
import { readSynapseRoom } from "../conformance/synapse-events/read-fixture.ts";
import { rulesFor } from "../support/a-pdu.ts";
import { laxJson } from "./arbitrary-json.ts";
import { mutate, place } from "./arbitrary-pdus.ts";

/** A room that real servers made, in the order of its one line of events. */
export interface RealRoom {
  readonly rules: RoomVersionRules;
  readonly events: readonly Event[];
}

function realRoomOf(rules: RoomVersionRules): RealRoom {
  const events = readSynapseRoom(rules.version).events.map(({ pdu }) => {
    const verdict = parsePdu(pdu, rules);
    if (!verdict.ok) throw new Error(verdict.reason);
    return verdict.event;
  });
  return { rules, events };
}

const ROOMS: readonly RealRoom[] = ROOM_VERSIONS.map((version) => realRoomOf(rulesFor(version)));

export const realRoom: fc.Arbitrary<RealRoom> = fc.constantFrom(...ROOMS);

/** What stands in events: values of one are put in the place of another's. */
const realValues: readonly JsonValue[] = ROOMS.flatMap(({ events }) =>
  events.flatMap(({ pdu }) => [pdu.sender, ...Object.values(pdu), ...Object.values(pdu.content)]),
).filter((value) => value !== undefined);

const replacement = fc.option(
  fc.oneof(
    laxJson,
    fc.constantFrom(...realValues),
    fc.constantFrom<JsonValue>("", "@", "@:", "$", "!", "join", "ban", -1, Number.MAX_SAFE_INTEGER, [], {}, [[]], null),
  ),
  { nil: undefined },
);

/** What is done to a value at some places inside of it. */
export type Mutation = readonly (readonly [place: readonly number[], replacement: JsonValue | undefined])[];

export const mutation: fc.Arbitrary<Mutation> = fc.array(fc.tuple(place, replacement), { minLength: 1, maxLength: 3 });

export function mutated(value: JsonValue, by: Mutation): JsonValue {
  return by.reduce<JsonValue>((changed, [at, other]) => mutate(changed, at, other) ?? null, value);
}

/** The same inside of the content alone, so that the event's form outlives it. */
export function mutatedContent(pdu: JsonObject, by: Mutation): JsonObject {
  return { ...pdu, content: mutated(pdu["content"] ?? {}, by) };
}

/** What is done to the bytes of a text: some are changed, taken out, or repeated. */
export interface ByteMutation {
  readonly at: number;
  readonly drop: number;
  readonly insert: Uint8Array;
  readonly repeat: number;
}

export const byteMutations: fc.Arbitrary<readonly ByteMutation[]> = fc.array(
  fc.record({
    at: fc.nat(),
    drop: fc.oneof(fc.constant(0), fc.nat(3), fc.nat(200)),
    insert: fc.oneof(
      fc.uint8Array({ maxLength: 3 }),
      fc
        .constantFrom('"', "{", "[", "]", "}", ",", ":", "\\", "1e999", "-0", "\u0000", "\uFEFF", "null")
        .map((text) => Buffer.from(text)),
    ),
    repeat: fc.oneof(fc.constant(0), fc.nat(60)),
  }),
  { minLength: 1, maxLength: 3 },
);

export function mutatedBytes(bytes: Uint8Array, mutations: readonly ByteMutation[]): Uint8Array {
  return mutations.reduce<Uint8Array>((text, { at, drop, insert, repeat }) => {
    const from = text.length === 0 ? 0 : at % text.length;
    const again = text.subarray(from, from + repeat);
    return Buffer.concat([text.subarray(0, from), again, insert, text.subarray(from + drop)]);
  }, bytes);
}
