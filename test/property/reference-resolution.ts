import { authorize } from "../../src/matrix/authorization/authorize.ts";
import { userLevel } from "../../src/matrix/authorization/levels.ts";
import { authEventIds, createEventIdOf, originServerTsOf } from "../../src/matrix/event.ts";
import type { Event } from "../../src/matrix/event.ts";
import type { EventId } from "../../src/matrix/identifiers.ts";
import type { RoomVersionRules } from "../../src/matrix/room-versions.ts";
import { splitStateKey, stateEntries, stateKeyOf } from "../../src/matrix/state.ts";
import type { StateMap } from "../../src/matrix/state.ts";

const LEAVES: ReadonlySet<unknown> = new Set(["leave", "ban"]);

/**
 * State resolution v2 and v2.1 as the specification words it, slowly and with nothing shared but the auth rules: to
 * compare the real one with.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v2/#state-resolution
 * @see https://spec.matrix.org/v1.19/rooms/v12/#state-resolution
 */
export function referenceResolution(
  rules: RoomVersionRules,
  stateSets: readonly StateMap[],
  room: ReadonlyMap<EventId, Event>,
): ReadonlyMap<string, EventId> {
  const isV21 = rules.stateResolution === "v2.1";
  const get = (id: EventId): Event => {
    const event = room.get(id);
    if (event === undefined) throw new Error(`${id} is unknown`);
    return event;
  };
  const sets = stateSets.map((state) => new Map(stateEntries(state)));
  const keys = new Set(sets.flatMap((set) => [...set.keys()]));
  const unconflicted = new Map<string, EventId>();
  const conflicted = new Set<EventId>();
  for (const key of keys) {
    const values = sets.map((set) => set.get(key));
    const [first] = values;
    if (first !== undefined && values.every((value) => value === first)) unconflicted.set(key, first);
    else values.filter((value) => value !== undefined).forEach((value) => conflicted.add(value));
  }

  const chains = new Map<EventId, ReadonlySet<EventId>>();
  const chain = (id: EventId): ReadonlySet<EventId> => {
    const above = authEventIds(get(id).pdu);
    const known = chains.get(id) ?? new Set([...above, ...above.flatMap((one) => [...chain(one)])]);
    chains.set(id, known);
    return known;
  };

  const full = sets.map((set) => new Set([...set.values()].flatMap((id) => [id, ...chain(id)])));
  const union = new Set(full.flatMap((one) => [...one]));
  const difference = [...union].filter((id) => !full.every((one) => one.has(id)));
  const subgraph = [...room.keys()].filter(
    (id) =>
      isV21 &&
      [...conflicted].some((from) => from === id || chain(from).has(id)) &&
      [...conflicted].some((to) => to === id || chain(id).has(to)),
  );
  const fullConflicted = new Set([...conflicted, ...difference, ...subgraph]);

  const isPower = (id: EventId): boolean => {
    const { type, state_key: stateKey, sender, content } = get(id).pdu;
    if (["m.room.power_levels", "m.room.join_rules", "m.room.create"].includes(type)) return stateKey === "";
    return type === "m.room.member" && LEAVES.has(content["membership"]) && sender !== stateKey;
  };
  // In the specification's words the whole auth chain counts; servers follow it within the full conflicted set only.
  const x = new Set([...fullConflicted].filter(isPower));
  for (let before = -1; before !== x.size;) {
    before = x.size;
    const cited = [...x].flatMap((id) => authEventIds(get(id).pdu));
    cited.filter((id) => fullConflicted.has(id)).forEach((id) => x.add(id));
  }

  const createOf = (event: Event): Event | undefined => {
    const id = createEventIdOf(rules, event.roomId);
    return id === undefined ? authOf(event, "m.room.create") : room.get(id);
  };
  const authOf = (event: Event, type: string, stateKey = ""): Event | undefined =>
    authEventIds(event.pdu)
      .map(get)
      .find(({ pdu }) => pdu.type === type && pdu.state_key === stateKey);
  const levelOf = (event: Event) =>
    userLevel(
      event.pdu.sender,
      event.pdu.type === "m.room.create" ? event : createOf(event),
      authOf(event, "m.room.power_levels"),
      rules,
    );
  const precedes = (one: Event, other: Event): boolean => {
    const [mine, theirs] = [levelOf(one), levelOf(other)];
    if (mine !== theirs) return mine > theirs;
    const [myTime, theirTime] = [originServerTsOf(one.pdu), originServerTsOf(other.pdu)];
    return myTime === theirTime ? one.eventId < other.eventId : myTime < theirTime;
  };

  const ordered: Event[] = [];
  const left = new Set(x);
  while (left.size > 0) {
    const candidates = [...left].filter((id) => authEventIds(get(id).pdu).every((one) => !left.has(one))).map(get);
    const least = candidates.reduce((best, one) => (precedes(one, best) ? one : best));
    ordered.push(least);
    left.delete(least.eventId);
  }

  const check = (events: readonly Event[], state: Map<string, EventId>): void => {
    for (const event of events) {
      if (event.rejected) continue;
      const lookUp = (type: string, stateKey: string): Event | undefined => {
        const id = state.get(stateKeyOf(type, stateKey));
        if (id !== undefined && !get(id).rejected) return get(id);
        const cited = type === "m.room.create" ? createOf(event) : authOf(event, type, stateKey);
        return cited?.rejected === true ? undefined : cited;
      };
      if (authorize(event, lookUp, rules).allowed) {
        state.set(stateKeyOf(event.pdu.type, event.pdu.state_key ?? ""), event.eventId);
      }
    }
  };
  const state = isV21 ? new Map<string, EventId>() : new Map(unconflicted);
  check(ordered, state);

  const mainline: Event[] = [];
  const top = state.get(stateKeyOf("m.room.power_levels", ""));
  for (let at = top && get(top); at !== undefined; at = authOf(at, "m.room.power_levels")) mainline.push(at);
  const position = (event: Event): number => {
    for (let at = authOf(event, "m.room.power_levels"); at !== undefined; at = authOf(at, "m.room.power_levels")) {
      const index = mainline.indexOf(at);
      if (index >= 0) return index;
    }
    return Infinity;
  };
  const rest = [...fullConflicted].filter((id) => !x.has(id)).map(get);
  rest.sort((one, other) => {
    const [mine, theirs] = [position(one), position(other)];
    if (mine !== theirs) return mine > theirs ? -1 : 1;
    const time = originServerTsOf(one.pdu) - originServerTsOf(other.pdu);
    return time === 0 ? (one.eventId < other.eventId ? -1 : 1) : time;
  });
  check(rest, state);

  return new Map([...state, ...unconflicted]);
}

/** The (type, state key) pairs of a state with their events, in a form that can be compared. */
export function comparable(entries: Iterable<readonly [string, EventId]>): readonly string[] {
  return [...entries].map(([key, id]) => `${splitStateKey(key).join(" ")} ${id}`).sort();
}
