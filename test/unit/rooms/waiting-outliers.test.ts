import { randomBytes } from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import type { Event } from "../../../src/matrix/event.ts";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { LosslessNumber, type JsonObject } from "../../../src/matrix/json.ts";
import { createWaitingOutliers, type WaitingOutliers } from "../../../src/rooms/fetch/waiting-outliers.ts";
import { aPdu, rulesFor } from "../../support/a-pdu.ts";

const rules = rulesFor("11");
const roomId = "!room:example.org";
const opened: WaitingOutliers[] = [];
afterEach(() => {
  for (const one of opened.splice(0)) one.end();
});

function newWaiting(): WaitingOutliers {
  const waiting = createWaitingOutliers(roomId);
  opened.push(waiting);
  return waiting;
}

function anEvent(name: string, content: JsonObject = {}): Event {
  return { eventId: `$${name}`, roomId, pdu: aPdu(rules, { content }), rejected: false };
}

const ids = (...names: readonly string[]): readonly EventId[] => names.map((name): EventId => `$${name}`);

function taken(waiting: WaitingOutliers, most = 100): readonly EventId[] {
  return waiting
    .takeReady(most, Number.POSITIVE_INFINITY)
    .map(({ event }) => event.eventId)
    .toSorted();
}

/** Large ones are not compressed: there is room for fewer than 170. */
const LARGE = { body: "x".repeat(400 * 1024) };

/** Lets events wait, each for one of its own, until there is no room for more. */
function fill(waiting: WaitingOutliers): number {
  let count = 0;
  while (waiting.hold(anEvent(`large${count}`, LARGE), ids(`missing${count}`))) count += 1;
  return count;
}

describe("createWaitingOutliers", () => {
  it("gives an event back as it came, once all that it lacks has arrived", () => {
    const waiting = newWaiting();
    const event = anEvent("waits", { number: new LosslessNumber("1.50"), text: "é🐙\u0000" });
    expect(waiting.hold(event, ids("one", "other", "one"))).toBe(true);
    waiting.arrived(ids("one", "somebody"));
    expect(taken(waiting)).toEqual([]);
    expect([...waiting.missing()]).toEqual(ids("other"));
    waiting.arrived(ids("other"));
    const [ready] = waiting.takeReady(1, Number.POSITIVE_INFINITY);
    expect(ready?.event).toEqual(event);
    expect(waiting.has(event.eventId)).toBe(false);
  });

  it("wakes those alone that lacked nothing else, as many at a time as are wanted", () => {
    const waiting = newWaiting();
    for (const name of ["a", "b", "c"]) waiting.hold(anEvent(name), ids("levels"));
    waiting.hold(anEvent("d"), ids("levels", "member"));
    waiting.arrived(ids("levels"));
    const first = taken(waiting, 2);
    expect([...first, ...taken(waiting)].toSorted()).toEqual(ids("a", "b", "c"));
    expect(waiting.stillWaiting()).toMatchObject({ undecided: ids("d"), missing: new Set(ids("member")) });
  });

  it("wakes a chain that came the wrong way round all at once, as far as it is wanted", () => {
    const waiting = newWaiting();
    for (const [name, lacked] of ["dc", "cb", "ba"]) waiting.hold(anEvent(name ?? ""), ids(lacked ?? ""));
    waiting.arrived(ids("a"));
    expect(taken(waiting, 2)).toEqual(ids("b", "c"));
    expect(taken(waiting)).toEqual(ids("d"));
  });

  it("tells rings, and what builds upon them, from what is above a hole", () => {
    const waiting = newWaiting();
    waiting.hold(anEvent("one"), ids("other"));
    waiting.hold(anEvent("other"), ids("one"));
    waiting.hold(anEvent("above"), ids("other", "hole"));
    waiting.hold(anEvent("honest"), ids("hole"));
    const { rings, undecided, missing } = waiting.stillWaiting();
    expect(rings.toSorted()).toEqual(ids("above", "one", "other"));
    expect([undecided, [...missing]]).toEqual([ids("honest"), ids("hole")]);
    waiting.arrived(ids("hole", "one"));
    expect(taken(waiting)).toEqual(ids("honest"));
    expect(waiting.stillWaiting()).toEqual({ rings: [], undecided: [], missing: new Set() });
  });

  it("lets go what there is no room for, but holds what others wait for", () => {
    const waiting = newWaiting();
    const count = fill(waiting);
    expect(count).toBeGreaterThan(100);
    expect(waiting.hold(anEvent("nobody's", LARGE), ids("more"))).toBe(false);
    expect(waiting.hold(anEvent("missing0", LARGE), ids("more"))).toBe(true);
    let reserved = 1;
    while (waiting.hold(anEvent(`missing${reserved}`, LARGE), ids("more"))) reserved += 1;
    expect(reserved).toBeLessThan(20);
    waiting.arrived(ids("missing1"));
    expect(taken(waiting)).toEqual(ids("large1"));
  });

  /** Of some 700 bytes, a third of them random: hashes and signatures. */
  function aMember(number: number): Event {
    const user = `@user${number}:server${number % 50}.example.org`;
    const random = randomBytes(160).toString("base64url");
    const signatures = { [`server${number % 50}.example.org`]: { "ed25519:a_key": random.slice(0, 86) } };
    const pdu = aPdu(rules, {
      type: "m.room.member",
      state_key: user,
      sender: user as UserId,
      signatures,
      content: { membership: "join", displayname: `User number ${number}` },
      depth: number,
      hashes: { sha256: random.slice(86, 129) },
      prev_events: ids(random.slice(129, 172)),
    });
    return { eventId: `$${number}-${random.slice(172)}`, roomId, pdu, rejected: false };
  }

  it("has room for the 120,000 members of a large room, and gives each back as it came", { timeout: 60_000 }, () => {
    const waiting = newWaiting();
    // Far more of them than are compressed together.
    const different = Array.from({ length: 500 }, (_none, number) => aMember(number));
    for (let number = 0; number < 120_000; number += 1) {
      const member = different[number % 500] ?? anEvent("none");
      const event = { ...member, eventId: `${member.eventId}-${number}` } as const;
      if (!waiting.hold(event, ids("levels", "rules"))) throw new Error(`no room for number ${number}`);
    }
    waiting.arrived(ids("rules", "levels"));
    const ready = waiting.takeReady(500, Number.POSITIVE_INFINITY);
    expect(ready.map(({ event }) => event.pdu).toReversed()).toEqual(different.map(({ pdu }) => pdu));
  });

  it("shares its room with other answers, which have a little of their own, until it ends", () => {
    const hostile = newWaiting();
    const honest = newWaiting();
    fill(hostile);
    expect(fill(honest)).toBe(1);
    hostile.end();
    expect(hostile.hold(anEvent("late"), ids("more"))).toBe(false);
    expect(fill(honest)).toBeGreaterThan(100);
  });
});
