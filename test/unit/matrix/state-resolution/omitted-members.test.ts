import { describe, expect, it } from "vitest";
import type { EventId } from "../../../../src/matrix/identifiers.ts";
import {
  stateApply,
  stateEntries,
  stateFromEntries,
  stateKeyOf,
  stateWith,
  type StateMap,
} from "../../../../src/matrix/state.ts";
import { withOmittedMembers } from "../../../../src/matrix/state-resolution/omitted-members.ts";

type Entries = Readonly<Record<string, EventId>>;

function state(members: Entries, others: Entries): StateMap {
  return stateFromEntries([
    ...Object.entries(members).map(([user, id]) => [stateKeyOf("m.room.member", user), id] as const),
    ...Object.entries(others).map(([type, id]) => [stateKeyOf(type, ""), id] as const),
  ]);
}

function entriesOf(one: StateMap | undefined): Entries {
  return Object.fromEntries([...stateEntries(one as StateMap)].map(([key, id]) => [key.replaceAll("\u001f", " "), id]));
}

const full = state({ "@a:x": "$a", "@b:x": "$b", "@c:x": "$c" }, { "m.room.topic": "$old", "m.room.name": "$name" });

describe("withOmittedMembers", () => {
  it("gives a partial state the members that it was never told", () => {
    const [filled] = withOmittedMembers([state({ "@a:x": "$a" }, { "m.room.topic": "$new" }), full]);
    expect(entriesOf(filled)).toMatchObject({ "m.room.member @b:x": "$b", "m.room.member @c:x": "$c" });
  });

  it("lets stand what the partial state says itself, of members too", () => {
    const [filled] = withOmittedMembers([state({ "@a:x": "$left" }, { "m.room.topic": "$new" }), full]);
    expect(entriesOf(filled)).toMatchObject({ "m.room.member @a:x": "$left", "m.room.topic ": "$new" });
  });

  it("fills up nothing but members", () => {
    const [filled] = withOmittedMembers([state({ "@a:x": "$a" }, {}), full]);
    expect(Object.keys(entriesOf(filled)).filter((key) => !key.startsWith("m.room.member"))).toEqual([]);
  });

  it("gives the largest state the members that only another has", () => {
    const states = withOmittedMembers([full, state({ "@d:x": "$d" }, {})]);
    for (const filled of states) expect(entriesOf(filled)).toHaveProperty("m.room.member @d:x", "$d");
  });

  it("leaves states alone that say different things of a member", () => {
    const states = withOmittedMembers([full, state({ "@a:x": "$other" }, {})]);
    expect(states.map((one) => entriesOf(one)["m.room.member @a:x"])).toEqual(["$a", "$other"]);
  });

  it("does the same for states on one base", () => {
    const joined = stateWith(full, "m.room.member", "@d:x", "$d");
    const [one, other] = withOmittedMembers([joined, stateWith(full, "m.room.topic", "", "$new")]);
    expect(entriesOf(other)).toMatchObject({ "m.room.member @d:x": "$d", "m.room.topic ": "$new" });
    expect(entriesOf(one)).toMatchObject({ "m.room.member @d:x": "$d", "m.room.topic ": "$old" });
  });

  it("gives the largest state what it has dropped of a base that another shares", () => {
    const dropped = stateApply(full, [
      [stateKeyOf("m.room.member", "@a:x"), null],
      [stateKeyOf("m.room.member", "@d:x"), "$d"],
      [stateKeyOf("m.room.member", "@e:x"), "$e"],
    ]);
    const [largest] = withOmittedMembers([dropped, stateWith(full, "m.room.topic", "", "$new")]);
    expect(entriesOf(largest)).toHaveProperty("m.room.member @a:x", "$a");
  });
});
