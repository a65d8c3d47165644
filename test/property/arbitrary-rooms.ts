import fc from "fast-check";

import { authorize } from "../../src/matrix/authorization/authorize.ts";
import type { EventId, UserId } from "../../src/matrix/identifiers.ts";
import { isJsonObject } from "../../src/matrix/json.ts";
import type { RoomVersion } from "../../src/matrix/room-versions.ts";
import { stateWith } from "../../src/matrix/state.ts";
import type { StateMap } from "../../src/matrix/state.ts";
import { resolveState } from "../../src/matrix/state-resolution/resolve.ts";
import {
  ALICE,
  aRoom,
  BOB,
  CHARLIE,
  DORA,
  joinRules,
  member,
  openRoom,
  powerLevels,
  topic,
} from "../support/builders.ts";
import type { Branch, EventDraft, TestRoom } from "../support/builders.ts";

const USERS: readonly UserId[] = [ALICE, BOB, CHARLIE, DORA];
const MEMBERSHIPS = ["join", "join", "leave", "ban", "invite", "knock"] as const;
const JOIN_RULES = ["public", "public", "invite", "knock", "restricted", "knock_restricted", "private"] as const;

/** One thing that somebody tries to do somewhere in the room; all numbers are read modulo what there is to choose from. */
interface Step {
  readonly branch: number;
  readonly mergeWith: number | null;
  readonly actor: number;
  readonly target: number;
  readonly action: "membership" | "power" | "join-rules" | "topic" | "events-level";
  readonly choice: number;
  readonly level: number;
  readonly ts: number;
  /** The new event is a fork: the branch it stands on stays as it is, beside it. */
  readonly fork: boolean;
}

const arbitraryStep: fc.Arbitrary<Step> = fc.record({
  branch: fc.nat(50),
  mergeWith: fc.option(fc.nat(50), { freq: 6 }),
  actor: fc.nat(3),
  target: fc.nat(3),
  action: fc.constantFrom("membership", "membership", "membership", "power", "join-rules", "topic", "events-level"),
  choice: fc.nat(50),
  level: fc.constantFrom(0, 25, 50, 75, 99, 100),
  ts: fc.nat(8),
  fork: fc.boolean(),
});

export interface GrownRoom {
  readonly room: TestRoom;
  /** The states of the branches, between which a resolution is asked for. */
  readonly states: readonly StateMap[];
  /** All events but those that were refused where they were sent. */
  readonly accepted: ReadonlySet<EventId>;
}

/** Rooms with forks and merges in which every event was allowed where it was sent. */
export function arbitraryRoom(version: RoomVersion, maxSteps = 40): fc.Arbitrary<GrownRoom> {
  return fc.array(arbitraryStep, { minLength: 4, maxLength: maxSteps }).map((steps) => grow(version, steps));
}

/**
 * Such rooms, with states as they come about between servers that don't know the same: here and there, an earlier or
 * later event stands where the branch has another.
 */
export function arbitraryMixedStates(version: RoomVersion, maxSteps = 40): fc.Arbitrary<GrownRoom> {
  const picks = fc.array(fc.tuple(fc.nat(10), fc.nat(200), fc.boolean()), { maxLength: 8 });
  return fc.tuple(arbitraryRoom(version, maxSteps), picks).map(([grown, mixed]) => {
    const accepted = [...grown.room.events.values()].filter((event) => grown.accepted.has(event.eventId));
    const powerLevels = accepted.filter(({ pdu }) => pdu.type === "m.room.power_levels");
    const states = grown.states.length > 1 ? [...grown.states] : [...grown.states, ...grown.states];
    for (const [at, pick, ofPower] of mixed) {
      const state = states[at % states.length];
      const choice = ofPower ? powerLevels : accepted;
      const event = choice[pick % choice.length];
      if (state !== undefined && event !== undefined) {
        states[at % states.length] = stateWith(state, event.pdu.type, event.pdu.state_key ?? "", event.eventId);
      }
    }
    return { ...grown, states };
  });
}

function grow(version: RoomVersion, steps: readonly Step[]): GrownRoom {
  const room = aRoom(version);
  const branches: Branch[] = [openRoom(room, steps.length % 2 === 0 ? {} : { [BOB]: 50 }, [BOB, CHARLIE])];
  const accepted = new Set(room.events.keys());
  for (const step of steps) {
    const index = step.branch % branches.length;
    const branch = mergedWith(room, branches, index, step);
    const tip = room.add(branch, draftOf(room, branch, step));
    if (!authorize(tip, room.authState(branch.state), room.rules).allowed) {
      continue;
    }
    accepted.add(tip.eventId);
    const grown: Branch = { tip, state: stateWith(branch.state, tip.pdu.type, tip.pdu.state_key ?? "", tip.eventId) };
    if (step.fork && branches.length < 4) {
      branches.push(grown);
    } else {
      branches[index] = grown;
    }
  }
  return { room, states: branches.map(({ state }) => state), accepted };
}

function mergedWith(room: TestRoom, branches: readonly Branch[], index: number, step: Step): Branch {
  const branch = branches[index];
  const other = step.mergeWith === null ? undefined : branches[step.mergeWith % branches.length];
  if (branch === undefined) {
    throw new RangeError("no such branch");
  }
  if (other === undefined || other === branch) {
    return branch;
  }
  const state = resolveState({ rules: room.rules, stateSets: [branch.state, other.state], event: room.event });
  return { tip: branch.tip, state };
}

function draftOf(room: TestRoom, branch: Branch, step: Step): EventDraft {
  const actor = USERS[step.actor] ?? ALICE;
  const target = USERS[step.target] ?? BOB;
  const ts = 2_000_000 + 1000 * step.ts;
  switch (step.action) {
    case "membership": {
      const membership = MEMBERSHIPS[step.choice % MEMBERSHIPS.length] ?? "join";
      const own = membership === "join" || membership === "knock";
      const voucher = membership === "join" && room.rules.restrictedJoins && step.choice > 25;
      const more = voucher ? { join_authorised_via_users_server: target } : {};
      return { ...member(actor, membership, own ? actor : target, more), ts };
    }
    case "power": {
      const content = currentContent(room, branch.state);
      const users = isJsonObject(content["users"]) ? content["users"] : {};
      const { [target]: _old, ...rest } = users;
      const changed = step.choice % 4 === 0 ? rest : { ...users, [target]: step.level };
      return { ...powerLevels(actor, { ...content, users: changed }), ts };
    }
    case "events-level": {
      const content = currentContent(room, branch.state);
      const name =
        ["ban", "kick", "invite", "events_default", "state_default", "users_default"][step.choice % 6] ?? "ban";
      return { ...powerLevels(actor, { ...content, [name]: step.level }), ts };
    }
    case "join-rules":
      return { ...joinRules(actor, JOIN_RULES[step.choice % JOIN_RULES.length] ?? "public"), ts };
    case "topic":
      return { ...topic(actor, `topic ${step.choice}`), ts };
  }
}

function currentContent(room: TestRoom, state: StateMap) {
  return room.authState(state)("m.room.power_levels", "")?.pdu.content ?? {};
}
