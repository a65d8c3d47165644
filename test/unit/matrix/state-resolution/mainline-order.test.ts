import { describe, expect, it } from "vitest";

import type { Event } from "../../../../src/matrix/event.ts";
import { mainlineOrder } from "../../../../src/matrix/state-resolution/mainline-order.ts";
import { roomEvents } from "../../../../src/matrix/state-resolution/room-events.ts";
import { ALICE, aRoom, BOB, openRoom, powerLevels, topic, usersWith } from "../../../support/builders.ts";
import type { Branch } from "../../../support/builders.ts";

function setUp() {
  const room = aRoom("11");
  const start = openRoom(room, { [BOB]: 50 });
  const levels = (branch: Branch, invite: number) =>
    room.send(branch, powerLevels(ALICE, { users: usersWith(room, { [BOB]: 50 }), invite }));
  const at = (branch: Branch, ts: number, text = "x") => room.add(branch, { ...topic(ALICE, text), ts });
  const order = (events: readonly Event[], base: Branch | undefined) =>
    mainlineOrder(
      events,
      base && room.authState(base.state)("m.room.power_levels", ""),
      roomEvents(room.rules, room.event),
    );
  return { room, start, levels, at, order };
}

describe("mainlineOrder", () => {
  it("puts what rests on earlier power levels first, whatever the clock says", () => {
    const { start, levels, at, order } = setUp();
    const second = levels(start, 1);
    const third = levels(second, 2);
    const [one, two, three] = [at(start, 900), at(second, 500), at(third, 100)];
    expect(order([three, one, two], third)).toEqual([one, two, three]);
  });

  it("goes by age, then by id, where the power levels are the same", () => {
    const { start, at, order } = setUp();
    const [old, young] = [at(start, 1), at(start, 2)];
    expect(order([young, old], start)).toEqual([old, young]);
    const same = ["a", "b", "c", "d"].map((text) => at(start, 3, text));
    const sorted = same.toSorted((one, other) => (one.eventId < other.eventId ? -1 : 1));
    expect(order(same.toReversed(), start)).toEqual(sorted);
  });

  it("follows side branches of power levels down to the mainline", () => {
    const { start, levels, at, order } = setUp();
    const main = levels(levels(start, 1), 2);
    const side = levels(levels(start, 7), 8);
    const [onSide, onMain, onStart] = [at(side, 300), at(main, 100), at(start, 200)];
    expect(order([onMain, onSide, onStart], main)).toEqual([onStart, onSide, onMain]);
  });

  it("puts what rests on no power levels, or on none of the mainline, first of all", () => {
    const { room, start, at, order } = setUp();
    const early = room.add(room.root, { ...topic(ALICE, "early"), ts: 999 });
    const onStart = at(start, 1);
    expect(order([onStart, early], start)).toEqual([early, onStart]);
    expect(order([early, onStart], undefined)).toEqual([onStart, early]);
  });

  it("survives 20,000 power levels in a row, and power levels that cite each other", () => {
    const { room, start, order } = setUp();
    let branch = start;
    const ring = new Map(room.events);
    const template = room.authState(start.state)("m.room.power_levels", "");
    if (template === undefined) throw new Error("the room has power levels");
    for (let index = 0; index < 20_000; index += 1) {
      const cited = index === 0 ? [] : [`$p${index - 1}` as const];
      ring.set(`$p${index}`, { ...template, eventId: `$p${index}`, pdu: { ...template.pdu, auth_events: cited } });
    }
    ring.set("$x", { ...template, eventId: "$x", pdu: { ...template.pdu, auth_events: ["$y"] } });
    ring.set("$y", { ...template, eventId: "$y", pdu: { ...template.pdu, auth_events: ["$x"] } });
    const events = roomEvents(room.rules, (id) => ring.get(id));
    const on = (id: `$${string}`, ts: number): Event => {
      branch = room.send(branch, { ...topic(ALICE, id), ts });
      return { ...branch.tip, pdu: { ...branch.tip.pdu, auth_events: [id] } };
    };
    const [deep, top, round] = [on("$p10", 3), on("$p19999", 2), on("$x", 1)];
    const resolve = (...list: readonly Event[]) => {
      for (const event of list) ring.set(event.eventId, event);
      return mainlineOrder(list, ring.get("$p19999"), events);
    };
    expect(resolve(top, deep, round)).toEqual([round, deep, top]);
    expect(order([], start)).toEqual([]);
  });
});
