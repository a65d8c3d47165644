import { authEventIds } from "../../matrix/event.ts";
import type { UserId } from "../../matrix/identifiers.ts";
import { stateKeyOf } from "../../matrix/state.ts";
import { loadEvents } from "../../storage/events.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { lookUpManyInSnapshot } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";

/**
 * The member events that a lazy-loading client needs to show a timeline: those of its senders, and of the users in
 * `also`. A sender whom the snapshot lacks, since its state is partial, is known from the auth events of what they
 * sent.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members
 */
export async function memberEventsOfSenders(
  ctx: RoomsContext,
  snapshotId: bigint,
  events: readonly StoredEvent[],
  also: readonly UserId[] = [],
): Promise<readonly StoredEvent[]> {
  const { pool } = ctx.database;
  const users = [...new Set([...events.map(({ pdu }) => pdu.sender), ...also])];
  const known = await lookUpManyInSnapshot(
    pool,
    snapshotId,
    users.map((user) => ["m.room.member", user]),
  );
  const fromState = new Set(known.values());
  const unknown = new Set(users.filter((user) => !known.has(stateKeyOf("m.room.member", user))));
  const claimed = new Set(events.filter(({ pdu }) => unknown.has(pdu.sender)).flatMap(({ pdu }) => authEventIds(pdu)));
  const loaded = await loadEvents(pool, [...fromState, ...claimed]);
  return [...loaded.values()].filter(
    (event) => fromState.has(event.eventId) || (isAcceptedMember(event) && unknown.has(event.pdu.sender)),
  );
}

/** A sender's own member event; one that somebody else made of them is none that lets them send. */
function isAcceptedMember({ pdu, rejected }: StoredEvent): boolean {
  return !rejected && pdu.type === "m.room.member" && pdu.state_key === pdu.sender;
}
