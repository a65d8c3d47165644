import fc from "fast-check";
import { ROOM_VERSIONS, type RoomVersion } from "../../../src/matrix/room-versions.ts";

/** What an event of another server does. */
const DEEDS = [
  "message",
  "topic",
  "join",
  "rename",
  "leave",
  "kick",
  "ban",
  "unban",
  "invite",
  "knock",
  "levels",
  "join rules",
  "redaction",
] as const;

/** What a user of ours does while the state is partial, or after. */
const OWN_DEEDS = ["message", "topic", "rename", "second joins", "second leaves", "kick", "redaction"] as const;

/** Where an event stands in the room's graph. */
export type Place =
  | { readonly place: "tips" }
  /** After one event, so many before the newest: a fork. */
  | { readonly place: "back"; readonly by: number }
  /** Beside our join: after what our join was made after. */
  | { readonly place: "beside our join" }
  /** After two events, however far apart. */
  | { readonly place: "merge"; readonly one: number; readonly other: number };

/** A ghost names the join of before as the auth event, or builds on what was before the leave: a fork. */
export type Ghost = "no" | "by its auth events" | "by its place";

/** An event of another server; numbers are read modulo what there is to choose from. */
export interface Happening {
  readonly what: (typeof DEEDS)[number];
  readonly who: number;
  readonly whom: number;
  readonly place: Place;
  /** So many events earlier is the state whose events it names as its auth events; 0: its own. */
  readonly staleBy: number;
  /** By anyone who was ever in the room, whatever they may do. */
  readonly bold: boolean;
  /** By someone who is in the room no more, and goes on as if they were. */
  readonly ghost: Ghost;
  /** Nobody sends it to us, so that there is a gap before what comes next. */
  readonly silent: boolean;
}

export type Manner = "one by one" | "together" | "shuffled" | "repeated" | "at once";

/** Something breaks at a process's n-th query. */
export interface Crash {
  readonly atQuery: number;
  readonly how:
    | "the process ends"
    /** The query is carried out, and only its answer is lost. */
    | "the process ends after it"
    /** PostgreSQL terminates the connection; the process lives on with what it remembers. */
    | "the connection ends";
}

export type Step =
  | {
      readonly step: "others";
      readonly happenings: readonly Happening[];
      readonly manner: Manner;
      readonly mix: number;
      /** Which server sends. */
      readonly from: number;
      readonly crash: Crash | null;
    }
  | {
      readonly step: "ours";
      readonly what: (typeof OWN_DEEDS)[number];
      readonly whom: number;
      readonly crash: Crash | null;
    }
  | {
      readonly step: "resync";
      readonly steps: number;
      readonly drivers: number;
      readonly crash: Crash | null;
    }
  | { readonly step: "time passes"; readonly crash: Crash | null };

/**
 * How a server treats our questions; it is honest to everyone else. A state in which an event is merely left out is not
 * among them: nothing tells it from the truth, also not for a server that joins in full.
 */
export const MOODS = [
  "honest",
  "hides the gap",
  "hides half the gap",
  "knows no gap",
  "knows no state",
  "bad signatures",
  "bad contents",
  "half answers",
  "no answers",
  "garbage",
  "empty state",
  "no create event",
  "wrong ids",
  "no auth chain",
] as const;
export type Mood = (typeof MOODS)[number];

/** A room's life. */
export interface Story {
  readonly version: RoomVersion;
  /** Of the generated room. */
  readonly bans: number;
  readonly forks: number;
  readonly named: boolean;
  /** Whether the other servers' clocks are ahead of ours, or behind. */
  readonly clockAhead: boolean;
  /** Before anyone of ours is there. */
  readonly before: readonly Happening[];
  /** Between the twin's join and ours: the twin is told. */
  readonly between: readonly Happening[];
  /** Of the servers besides the first one, which is honest. */
  readonly moods: readonly Mood[];
  /** By which server we join. */
  readonly via: number;
  readonly crashAtJoin: Crash | null;
  /** While we wait for the answer to our join: we are sent them before we know the room. */
  readonly meanwhile: readonly Happening[];
  readonly after: readonly Step[];
  /** Whether a last event follows on all that is accepted, so that every server has the same tip. */
  readonly together: boolean;
}

const number = fc.nat(1_000);

const place: fc.Arbitrary<Place> = fc.oneof(
  { weight: 5, arbitrary: fc.constant<Place>({ place: "tips" }) },
  { weight: 2, arbitrary: fc.record({ place: fc.constant("back" as const), by: fc.nat(12) }) },
  { weight: 1, arbitrary: fc.constant<Place>({ place: "beside our join" }) },
  { weight: 1, arbitrary: fc.record({ place: fc.constant("merge" as const), one: fc.nat(8), other: fc.nat(12) }) },
);

const happeningOf = (deeds: readonly Happening["what"][]): fc.Arbitrary<Happening> =>
  fc.record({
    what: fc.constantFrom(...deeds),
    who: number,
    whom: number,
    place,
    staleBy: fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(10) }),
    bold: fc.oneof({ weight: 3, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
    ghost: fc.oneof(
      { weight: 3, arbitrary: fc.constant<Ghost>("no") },
      { weight: 2, arbitrary: fc.constantFrom<Ghost>("by its auth events", "by its place") },
    ),
    silent: fc.oneof({ weight: 3, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
  });

const happening = happeningOf(DEEDS);
/** Until we are there, nobody shuts the door. */
const earlierHappening = happeningOf(DEEDS.filter((deed) => deed !== "join rules"));

const HOW: readonly Crash["how"][] = ["the process ends", "the process ends after it", "the connection ends"];

const crash: fc.Arbitrary<Crash | null> = fc.oneof(
  { weight: 5, arbitrary: fc.constant(null) },
  { weight: 1, arbitrary: fc.record({ atQuery: fc.integer({ min: 1, max: 60 }), how: fc.constantFrom(...HOW) }) },
);

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      step: fc.constant("others" as const),
      happenings: fc.array(happening, { minLength: 1, maxLength: 3 }),
      manner: fc.constantFrom<Manner>("one by one", "one by one", "together", "shuffled", "repeated", "at once"),
      mix: number,
      from: fc.nat(2),
      crash,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      step: fc.constant("ours" as const),
      what: fc.constantFrom(...OWN_DEEDS),
      whom: number,
      crash,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      step: fc.constant("resync" as const),
      steps: fc.integer({ min: 1, max: 4 }),
      drivers: fc.constantFrom(1, 1, 2),
      crash,
    }),
  },
  { weight: 1, arbitrary: fc.record({ step: fc.constant("time passes" as const), crash }) },
);

const mood: fc.Arbitrary<Mood> = fc.oneof(
  { weight: 2, arbitrary: fc.constant<Mood>("honest") },
  { weight: 3, arbitrary: fc.constantFrom(...MOODS) },
);

export const stories: fc.Arbitrary<Story> = fc.record({
  version: fc.constantFrom(...ROOM_VERSIONS),
  bans: fc.nat(1),
  forks: fc.nat(1),
  named: fc.boolean(),
  clockAhead: fc.boolean(),
  before: fc.array(earlierHappening, { maxLength: 4 }),
  between: fc.array(earlierHappening, { maxLength: 2 }),
  moods: fc.tuple(mood, mood),
  via: fc.nat(2),
  crashAtJoin: crash,
  meanwhile: fc.array(earlierHappening, { maxLength: 2 }),
  after: fc.array(step, { minLength: 1, maxLength: 5 }),
  together: fc.boolean(),
});
