import type { ServerResponse } from "node:http";
import type { EventId, ServerName } from "../../src/matrix/identifiers.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";

/** The endpoints by the names that trouble is made under. */
export const ENDPOINTS = [
  "version",
  "server_keys",
  "query_keys",
  "send",
  "make_join",
  "send_join",
  "make_knock",
  "send_knock",
  "make_leave",
  "send_leave",
  "invite",
  "state",
  "state_ids",
  "event",
  "event_auth",
  "get_missing_events",
  "backfill",
  "profile",
  "directory",
  "user_devices",
  "user_keys_query",
  "user_keys_claim",
] as const;
export type Endpoint = (typeof ENDPOINTS)[number];

/** A false answer that is otherwise well-formed. */
export type Lie =
  /** send_join leaves this server out of servers_in_room. */
  | { readonly lie: "hide-server"; readonly server: string }
  /** send_join names this server in servers_in_room, whether any user of it is joined or not. */
  | { readonly lie: "show-server"; readonly server: string }
  /** In send_join, state and state_ids another event (or none) stands under this key of the state. */
  | {
      readonly lie: "replace-state";
      readonly type: string;
      readonly stateKey: string;
      readonly eventId: EventId | null;
    }
  /** state and state_ids leave out every n-th event of the state. */
  | { readonly lie: "missing-state"; readonly every: number }
  /** No state at all, in a well-formed answer. */
  | { readonly lie: "empty-state" }
  /** The auth chain leaves out this event, or all of it. */
  | { readonly lie: "missing-auth"; readonly eventId?: EventId }
  /** An event that belongs to another room, or none, stands in the auth chain. */
  | { readonly lie: "foreign-auth"; readonly pdu: JsonObject }
  /** This text, so many times, behind the events of the state, or of its auth chain. */
  | { readonly lie: "repeat"; readonly text: string; readonly times: number; readonly list: "state" | "auth_chain" }
  /** send_join: a second create event in the auth chain, or in place of the true one in the state. */
  | { readonly lie: "other-create"; readonly where: "state" | "auth_chain" }
  | { readonly lie: "no-create" }
  | { readonly lie: "room-version"; readonly version: string }
  | { readonly lie: "no-servers-in-room" }
  /** Members are left out and servers given, but members_omitted is not said, or is said although all are there. */
  | { readonly lie: "members-omitted"; readonly says: boolean }
  | { readonly lie: "omit-unasked" }
  /** make_join, make_leave: members of the template are replaced. */
  | { readonly lie: "template"; readonly changes: JsonObject }
  /** get_missing_events leaves out every n-th event, as if it had no such event. */
  | { readonly lie: "missing-events"; readonly every: number }
  /** Events of these types are served with a broken signature, or a changed content. */
  | { readonly lie: "bad-signature"; readonly type: string }
  | { readonly lie: "bad-content"; readonly type: string }
  /** This one event is served with a broken signature, or in a form that no room version allows. */
  | { readonly lie: "spoil"; readonly eventId: EventId; readonly how: "signature" | "form" }
  /** get_missing_events gives these, whatever was asked for. */
  | { readonly lie: "gap"; readonly pdus: readonly JsonValue[] }
  /** get_missing_events gives no more than so many of the nearest. */
  | { readonly lie: "short-gap"; readonly most: number }
  /** Any answer: members of its top level are replaced. */
  | { readonly lie: "answer"; readonly changes: JsonObject };

export type TroubleKind =
  /** Until this trouble is ended: then what is left of an answer follows at once. */
  | { readonly kind: "slow"; readonly delayMs?: number; readonly bytesPerSecond?: number }
  | {
      readonly kind: "refuse";
      readonly status: number;
      readonly errcode?: string;
      readonly error?: string;
      readonly extra?: JsonObject;
    }
  /** Bytes that are no JSON, with status 200. */
  | { readonly kind: "garbage"; readonly text?: string }
  /** The connection is closed before an answer. */
  | { readonly kind: "reset" }
  /** No answer, ever. */
  | { readonly kind: "hang" }
  /** The request is handled as ever, and its answer held until this trouble is ended. */
  | { readonly kind: "hold" }
  /** The test answers in its own way; only for a resident in the test's own process, like the next. */
  | { readonly kind: "raw"; readonly answer: (response: ServerResponse) => void | Promise<void> }
  /** The text of the answer is changed on its way out. */
  | { readonly kind: "rewrite"; readonly change: (text: string) => string | Uint8Array }
  /** The first half of the answer, then the connection closes. */
  | { readonly kind: "half-body" }
  /** send_join gives the whole state although it was asked to omit members. */
  | { readonly kind: "full-join" }
  /** The keys of these servers are not given by server_keys or query_keys. */
  | { readonly kind: "no-keys"; readonly servers: readonly string[] }
  | ({ readonly kind: "lie" } & Lie);

/** One switch: what goes wrong, where, and for how long. */
export type Trouble = TroubleKind & {
  /** All endpoints but the keys' when left out. */
  readonly at?: Endpoint | readonly Endpoint[];
  /** Only for requests of this event: the path's, or `event_id`. */
  readonly forEvent?: EventId;
  /** Only for requests of this server. */
  readonly forServer?: ServerName;
  /** Only the first requests that it meets. */
  readonly times?: number;
  /** Only until then, in milliseconds since the epoch. */
  readonly until?: number;
};

interface Switch {
  readonly trouble: Trouble;
  left: number;
  readonly end: () => void;
}

const endings = new WeakMap<Trouble, Promise<void>>();

/** Waits for the end of those that hold answers. */
export async function untilLetGo(troubles: readonly Trouble[]): Promise<void> {
  await Promise.all(troubles.flatMap((one) => (one.kind === "hold" ? (endings.get(one) ?? []) : [])));
}

/** Settled when the trouble has been ended. */
export async function endOf(trouble: Trouble): Promise<void> {
  await endings.get(trouble);
}

/** The switches of one front. */
export interface Switches {
  readonly on: Switch[];
}

export function newSwitches(): Switches {
  return { on: [] };
}

/** @returns a function that ends this trouble */
export function makeTrouble(switches: Switches, trouble: Trouble): () => void {
  let end = (): void => {};
  const own = { ...trouble };
  endings.set(own, new Promise((resolve) => (end = resolve)));
  const made: Switch = { trouble: own, left: trouble.times ?? Number.POSITIVE_INFINITY, end };
  switches.on.push(made);
  return () => {
    const index = switches.on.indexOf(made);
    if (index >= 0) switches.on.splice(index, 1);
    end();
  };
}

export function clearTrouble(switches: Switches): void {
  for (const { end } of switches.on) end();
  switches.on.length = 0;
}

const KEY_ENDPOINTS: readonly Endpoint[] = ["server_keys", "query_keys"];

/** What a request is about. */
interface Request {
  readonly endpoint: Endpoint;
  readonly eventId: EventId | undefined;
  readonly origin: ServerName | undefined;
}

function meets(trouble: Trouble, { endpoint, eventId, origin }: Request): boolean {
  if (trouble.until !== undefined && Date.now() >= trouble.until) return false;
  if (trouble.forEvent !== undefined && trouble.forEvent !== eventId) return false;
  if (trouble.forServer !== undefined && trouble.forServer !== origin) return false;
  if (trouble.at === undefined) return trouble.kind === "no-keys" || !KEY_ENDPOINTS.includes(endpoint);
  return typeof trouble.at === "string" ? trouble.at === endpoint : trouble.at.includes(endpoint);
}

/** The troubles that a request runs into; each counts this meeting. */
export function troublesFor(switches: Switches, request: Request): Trouble[] {
  const met = switches.on.filter(({ trouble, left }) => left > 0 && meets(trouble, request));
  for (const one of met) one.left -= 1;
  return met.map(({ trouble }) => trouble);
}

type LieNamed<Name extends Lie["lie"]> = Extract<Lie, { readonly lie: Name }>;

export function liesNamed<Name extends Lie["lie"]>(troubles: readonly Trouble[], name: Name): LieNamed<Name>[] {
  return troubles.flatMap((trouble) =>
    trouble.kind === "lie" && trouble.lie === name ? [trouble as unknown as LieNamed<Name>] : [],
  );
}

export function lieNamed<Name extends Lie["lie"]>(
  troubles: readonly Trouble[],
  name: Name,
): LieNamed<Name> | undefined {
  return liesNamed(troubles, name)[0];
}

export function troubleOf<Kind extends TroubleKind["kind"]>(
  troubles: readonly Trouble[],
  kind: Kind,
): Extract<Trouble, { readonly kind: Kind }> | undefined {
  return troubles.find((trouble): trouble is Extract<Trouble, { readonly kind: Kind }> => trouble.kind === kind);
}
