import type { Event, Pdu } from "../src/matrix/event.ts";
import type { EventId, UserId } from "../src/matrix/identifiers.ts";
import type { RoomVersion } from "../src/matrix/room-versions.ts";
import { rulesOf } from "../src/matrix/room-versions.ts";
import { resolveState } from "../src/matrix/state-resolution/resolve.ts";
import { stateApply, stateFromEntries, stateKeyOf } from "../src/matrix/state.ts";
import type { StateMap } from "../src/matrix/state.ts";

/**
 * What the resolution of two states costs that differ by so many membership events, in a room of 20,000 other members:
 * `npx tsx bench/resolve-state.ts`. In time of the processor, so that it doesn't matter what else runs.
 */

const ADMIN: UserId = "@admin:example.org";
const UNCONFLICTED_MEMBERS = 20_000;
const RUNS = 7;
/** Before the measured ones, so that the code is compiled, as in a server that has run for a while. */
const WARM_UP_RUNS = 15;

interface Room {
  readonly version: RoomVersion;
  readonly events: Map<EventId, Event>;
}

function add(room: Room, [type, sender, stateKey]: [string, UserId, string], rest: Partial<Pdu>): Event {
  const isV12 = room.version === "12";
  const eventId: EventId = type === "m.room.create" ? "$create" : `$${room.events.size}`;
  const cited = (rest.auth_events ?? []).filter((id) => !isV12 || id !== "$create");
  const pdu = {
    type,
    sender,
    state_key: stateKey,
    prev_events: ["$create", "$earlier"],
    depth: 1,
    origin_server_ts: 1_700_000_000_000 + room.events.size,
    content: {},
    ...rest,
    auth_events: cited,
  } as unknown as Pdu;
  const event: Event = { eventId, roomId: isV12 ? "!create" : "!room:example.org", pdu, rejected: false };
  room.events.set(eventId, event);
  return event;
}

const entryOf = ({ eventId, pdu }: Event) => [stateKeyOf(pdu.type, pdu.state_key ?? ""), eventId] as const;

interface Case {
  readonly name: string;
  /** The events of one of the two branches, in a room where everybody named here was in before. */
  readonly change: (user: UserId, branch: number) => { sender: UserId; membership: string };
}

const CASES: readonly Case[] = [
  { name: "joins", change: (user) => ({ sender: user, membership: "join" }) },
  { name: "leaves", change: (user, branch) => ({ sender: user, membership: branch === 0 ? "leave" : "join" }) },
  {
    name: "bans",
    change: (user, branch) =>
      branch === 0 ? { sender: ADMIN, membership: "ban" } : { sender: user, membership: "join" },
  },
];

function build(version: RoomVersion, conflicted: number, { change }: Case): { room: Room; stateSets: StateMap[] } {
  const room: Room = { version, events: new Map() };
  const create = add(room, ["m.room.create", ADMIN, ""], { prev_events: [], content: { room_version: version } });
  const founded = [create.eventId];
  const admin = add(room, ["m.room.member", ADMIN, ADMIN], { content: { membership: "join" }, auth_events: founded });
  const levels = add(room, ["m.room.power_levels", ADMIN, ""], {
    content: { users: version === "12" ? {} : { [ADMIN]: 100 } },
    auth_events: [...founded, admin.eventId],
  });
  const rules = add(room, ["m.room.join_rules", ADMIN, ""], {
    content: { join_rule: "public" },
    auth_events: [...founded, admin.eventId, levels.eventId],
  });
  const usual = [...founded, levels.eventId, rules.eventId];
  const join = (user: UserId): Event =>
    add(room, ["m.room.member", user, user], { content: { membership: "join" }, auth_events: usual });

  const agreed = [create, admin, levels, rules];
  for (let index = 0; index < UNCONFLICTED_MEMBERS; index += 1) {
    agreed.push(join(`@member${index}:example.org`));
  }
  const base = stateFromEntries(agreed.map(entryOf));
  const users = Array.from({ length: conflicted / 2 }, (_, index): UserId => `@user${index}:s${index % 97}.example`);
  const before = users.map((user) => [user, join(user)] as const);
  const stateSets = [0, 1].map((branch) =>
    stateApply(
      base,
      before.map(([user, joined]) => {
        const { sender, membership } = change(user, branch);
        const cited = sender === ADMIN ? [...usual.filter((id) => id !== rules.eventId), admin.eventId] : usual;
        const content = { membership, displayname: `branch ${branch}` };
        return entryOf(
          add(room, ["m.room.member", sender, user], { content, auth_events: [...cited, joined.eventId] }),
        );
      }),
    ),
  );
  return { room, stateSets };
}

function measure(version: RoomVersion, conflicted: number, one: Case): number {
  const rules = rulesOf(version);
  if (rules === undefined) throw new RangeError(version);
  const { room, stateSets } = build(version, conflicted, one);
  const times = Array.from({ length: WARM_UP_RUNS + RUNS }, () => {
    const start = process.cpuUsage();
    const resolved = resolveState({ rules, stateSets, event: (id) => room.events.get(id) });
    if (resolved.size < UNCONFLICTED_MEMBERS) throw new Error("the resolution lost state");
    const { user, system } = process.cpuUsage(start);
    return (user + system) / 1000;
  });
  return times.slice(WARM_UP_RUNS).sort((a, b) => a - b)[Math.floor(RUNS / 2)] ?? NaN;
}

console.log("room version  case    1,000 conflicted  10,000 conflicted   (CPU ms, median)");
for (const version of ["1", "11", "12"] as const) {
  for (const one of CASES) {
    const [small, large] = [1_000, 10_000].map((count) => measure(version, count, one).toFixed(1));
    console.log(`${version.padEnd(13)} ${one.name.padEnd(7)} ${small?.padStart(16)} ${large?.padStart(18)}`);
  }
}
