import type { EventId } from "../../../src/matrix/identifiers.ts";
import { splitStateKey, stateEntries } from "../../../src/matrix/state.ts";
import { stateAfter } from "../../resident/hosted-room.ts";
import { knownRoom, type KnownEvent, type KnownRoom } from "./known-room.ts";
import { isTurnedOut, type RoomInPlay } from "./room-in-play.ts";
import { replayArrivals } from "./replay-arrivals.ts";
import { timelineText } from "./timeline-text.ts";

export interface Compared {
  readonly differences: readonly string[];
  /** The events came to both servers in the same order, so that everything was compared. */
  readonly sameArrivals: boolean;
  /** Ours or the twin is in the room no more, so that there is nothing to compare. */
  readonly turnedOut: boolean;
  /** Events that the twin soft-failed. */
  readonly softFailed: number;
  /** Events that we accepted at first and then refused, or the other way round. */
  readonly changed: number;
}

/**
 * What ours makes of the room beside what its twin, which joined in full, makes of it. Whether an event is rejected and
 * the state before it follow from the room's graph alone, so they are the same on both, always.
 *
 * Whether it is soft-failed depends on what the server knew when the event came (check 6), and with that the forward
 * extremities and the current state do. So these are the same where the events came in the same order. They need not:
 * an event that builds on what was before our join has to wait until its past is fetched, which the twin has; a server
 * that hides a gap from us gives it to the twin. Then each server is held to what the rules make of the order in which
 * the events came to it ({@link replayArrivals}); which both are, in any case.
 */
export async function compareWithTwin(play: RoomInPlay): Promise<Compared> {
  const { stage, room } = play;
  if (isTurnedOut(play)) return { differences: [], sameArrivals: false, turnedOut: true, softFailed: 0, changed: 0 };
  const ours = await knownRoom(stage.ours.database, room.roomId);
  const twin = await knownRoom(stage.twin.database, room.roomId);
  const since = (known: KnownRoom): readonly KnownEvent[] => {
    const at = known.timeline.findIndex((event) => event.eventId === play.join);
    return at < 0 ? [] : known.timeline.slice(at);
  };
  const arrivals = (known: KnownRoom): string =>
    since(known)
      .map((event) => event.eventId)
      .join(" ");
  const sameArrivals = arrivals(ours) === arrivals(twin);
  const differences = [
    ...leftoverDifferences(ours, "ours"),
    ...leftoverDifferences(twin, "twin"),
    ...lostEvents(play, ours, "ours"),
    ...lostEvents(play, twin, "twin"),
    ...memberDifferences(ours, "ours"),
    ...eventDifferences(since(ours), twin.timeline, sameArrivals),
    ...(sameArrivals ? roomDifferences(ours, twin) : []),
    ...replayDifferences(play, ours, "ours"),
    ...replayDifferences(play, twin, "twin"),
    ...(play.story.together ? endDifferences(play, ours) : []),
  ];
  if (differences.length > 0) differences.push(timelineText(play, ours, twin));
  const softFailed = twin.timeline.filter((event) => event.softFailed).length;
  return { differences, sameArrivals, turnedOut: false, softFailed, changed: ours.changed };
}

function leftoverDifferences({ leftovers }: KnownRoom, of: string): readonly string[] {
  return Object.entries(leftovers).map(([table, count]) => `${of}: ${count} rows are left in ${table}`);
}

/** Whatever a server was sent is in its timeline, by whatever detours. */
function lostEvents(play: RoomInPlay, { timeline }: KnownRoom, of: "ours" | "twin"): readonly string[] {
  const known = new Set(timeline.map((event) => event.eventId));
  const told = of === "ours" ? play.toldOurs : play.toldTwin;
  const why = (id: EventId): string => play.notTaken.get(id) ?? "it was taken";
  return [...told].filter((id) => !known.has(id)).map((id) => `${of}: ${id} was sent and is lost: ${why(id)}`);
}

/** The rows by which users and servers are looked up are those of the current state. */
function memberDifferences({ members, currentState }: KnownRoom, of: string): readonly string[] {
  const inState = [...currentState].flatMap(([key, eventId]): [string, string][] => {
    const [type, userId] = splitStateKey(key);
    return type === "m.room.member" ? [[userId, eventId]] : [];
  });
  const inRows = [...members].map(([userId, member]): [string, string] => [userId, member.split(" ")[1] ?? ""]);
  return mapDifferences(new Map(inRows), new Map(inState), `${of}: rows of members and current state`);
}

function eventDifferences(
  ours: readonly KnownEvent[],
  twins: readonly KnownEvent[],
  sameArrivals: boolean,
): readonly string[] {
  const twinOf = new Map(twins.map((event) => [event.eventId, event]));
  return ours.flatMap((event) => {
    const twin = twinOf.get(event.eventId);
    if (twin === undefined) return [`the twin has no ${event.eventId}`];
    const found: string[] = [];
    if ((event.rejection === null) !== (twin.rejection === null)) {
      found.push(`${event.eventId}: ours ${verdict(event)}, twin ${verdict(twin)}`);
    } else if (sameArrivals && event.softFailed !== twin.softFailed) {
      found.push(`${event.eventId}: soft-failed: ours ${event.softFailed}, twin ${twin.softFailed}`);
    }
    return [...found, ...mapDifferences(event.stateBefore, twin.stateBefore, `state before ${event.eventId}`)];
  });
}

function verdict({ rejection }: KnownEvent): string {
  return rejection === null ? "accepts it" : `rejects it (${rejection})`;
}

function roomDifferences(ours: KnownRoom, twin: KnownRoom): readonly string[] {
  return [
    ...idDifferences(ours.extremities, twin.extremities, "extremities: ours and twin"),
    ...mapDifferences(ours.currentState, twin.currentState, "current state"),
    ...mapDifferences(ours.members, twin.members, "members"),
  ];
}

/** What the rules make of the events in the order in which they came to a server, whatever came to the other one. */
function replayDifferences({ room }: RoomInPlay, known: KnownRoom, of: string): readonly string[] {
  const { softFailed, extremities, currentState } = replayArrivals(
    room,
    known.timeline.map((event) => event.eventId),
  );
  const wrong = known.timeline.filter((event) => event.softFailed !== softFailed.has(event.eventId));
  return [
    ...wrong.map((event) => `${of}: ${event.eventId} is ${event.softFailed ? "" : "not "}soft-failed`),
    ...idDifferences(known.extremities, extremities, `${of}: extremities and those by the rules`),
    ...mapDifferences(known.currentState, new Map(stateEntries(currentState)), `${of}: current state, by the rules`),
  ];
}

/** After a last event that builds on all that is accepted, every server knows the same room. */
function endDifferences({ room, end }: RoomInPlay, ours: KnownRoom): readonly string[] {
  if (end === undefined || ours.extremities.join(" ") !== end) return [];
  return mapDifferences(
    ours.currentState,
    new Map(stateEntries(stateAfter(room, end))),
    "current state, by the resident",
  );
}

function idDifferences(ours: readonly EventId[], other: readonly EventId[], of: string): readonly string[] {
  return ours.join(" ") === other.join(" ") ? [] : [`${of}: ${ours.join(" ")}; ${other.join(" ")}`];
}

function mapDifferences(
  ours: ReadonlyMap<string, string>,
  other: ReadonlyMap<string, string>,
  of: string,
): readonly string[] {
  return [...new Set([...ours.keys(), ...other.keys()])].flatMap((key) =>
    ours.get(key) === other.get(key)
      ? []
      : [`${of}: ${key.replace("\u001f", " ")}: ours ${ours.get(key)}, other ${other.get(key)}`],
  );
}
