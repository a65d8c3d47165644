import { isStateEvent, type Pdu } from "../../matrix/event.ts";
import { serverNameOf } from "../../matrix/identifiers.ts";
import type { ServerName, UserId } from "../../matrix/identifiers.ts";
import { redact } from "../../matrix/redaction.ts";
import { splitStateKey, stateEntries } from "../../matrix/state.ts";
import { loadEvent, type StoredEvent } from "../../storage/events.ts";
import { loadMemberships } from "../../storage/member-events.ts";
import type { Membership } from "../../storage/memberships.ts";
import { whichWereSentTo } from "../../storage/own-event-destinations.ts";
import { partialEventIds } from "../../storage/partial-state.ts";
import { loadState, lookUpInSnapshot } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";
import { redactedForms } from "./serve-pdus.ts";
import { isOurs, type ServedRoom } from "./served-room.ts";

/**
 * Events of one room as a server that is in it may have them. One that the history visibility hides is given in its
 * redacted form: its place in the graph is no secret, and its hashes and signatures still hold.
 *
 * An event whose past we know only in part, or not at all, can't be judged: it is left out, unless it is ours. A
 * rejected event is left out always, and one to which a redaction applies is given redacted. What a server was sent by
 * us it may have again.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility
 */
export async function pdusVisibleTo(
  ctx: RoomsContext,
  room: ServedRoom,
  server: ServerName,
  events: readonly StoredEvent[],
): Promise<readonly Pdu[]> {
  const ids = events.map((event) => event.eventId);
  const partial = await partialEventIds(ctx.database.pool, ids);
  const sent = await whichWereSentTo(ctx.database.pool, ids, server);
  const judge = visibilityJudge(ctx, server);
  const redacted = await redactedForms(ctx, room.rules, events);
  const pdus: Pdu[] = [];
  for (const event of events) {
    if (event.rejection !== null) continue;
    const pdu = redacted.get(event.eventId) ?? event.pdu;
    if (sent.has(event.eventId)) pdus.push(pdu);
    else if (partial.has(event.eventId) || isWithoutPast(event)) {
      if (isOurs(ctx, event)) pdus.push(pdu);
    } else pdus.push((await judge(event)) ? pdu : redact(event.pdu, room.rules));
  }
  return pdus;
}

/**
 * Whether nobody can tell who could see it: a message of which we know no state, since it was fetched as history, or as
 * the past of another. (Of a state event that we know so, a server in the room may have the whole state it belongs to.)
 */
function isWithoutPast({ outlier, stateBefore, stateAfter, pdu }: StoredEvent): boolean {
  return !isStateEvent(pdu) && (outlier || stateBefore === null || stateAfter === null);
}

/** Which memberships of a server's users let it see an event; undefined: it need have none. */
const SEEN_BY: ReadonlyMap<unknown, readonly Membership[]> = new Map([
  ["invited", ["join", "invite"]],
  ["joined", ["join"]],
]);

function visibilityJudge(ctx: RoomsContext, server: ServerName): (event: StoredEvent) => Promise<boolean> {
  const verdicts = new Map<bigint, Promise<boolean>>();
  const sees = (snapshotId: bigint): Promise<boolean> => {
    const known = verdicts.get(snapshotId) ?? stateShows(ctx, snapshotId, server);
    verdicts.set(snapshotId, known);
    return known;
  };
  return async (event) => {
    if (event.outlier || event.stateBefore === null || event.stateAfter === null) return true;
    // An event that changes the visibility or a membership counts under the more open of both.
    return (await sees(event.stateAfter)) || (await sees(event.stateBefore));
  };
}

async function stateShows(ctx: RoomsContext, snapshotId: bigint, server: ServerName): Promise<boolean> {
  const { pool } = ctx.database;
  const visibilityId = await lookUpInSnapshot(pool, snapshotId, "m.room.history_visibility", "");
  const visibility = visibilityId === undefined ? undefined : await loadEvent(pool, visibilityId);
  const seenBy = SEEN_BY.get(visibility?.pdu.content["history_visibility"]);
  if (seenBy === undefined) return true;
  const state = await loadState(ctx.database, snapshotId);
  // Not the room's current members: a partial room's leave out those that the resync has brought already.
  const ids = [...stateEntries(state)].flatMap(([key, eventId]) => {
    const [type, userId] = splitStateKey(key);
    return type === "m.room.member" && serverNameOf(userId as UserId) === server ? [eventId] : [];
  });
  const memberships = await loadMemberships(pool, ids);
  return [...memberships.values()].some((membership) => seenBy.includes(membership));
}
