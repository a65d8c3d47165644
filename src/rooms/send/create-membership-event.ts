import { MatrixError } from "../../federation-api/matrix-error.ts";
import { serverNameOf, type EventId, type RoomId, type ServerName, type UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import type { Connection } from "../../storage/database.ts";
import { loadMemberships } from "../../storage/member-events.ts";
import { membershipOf, type Member } from "../../storage/memberships.ts";
import { addToOutbox } from "../../storage/outbox.ts";
import { lookUpInSnapshot } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";
import { createEvent } from "../events/create-event.ts";

export interface MembershipOfAnother {
  readonly roomId: RoomId;
  readonly sender: UserId;
  readonly target: UserId;
  /** `membership` included. */
  readonly content: JsonObject;
  /** Refused where the target is banned by the time that it is made: a kick must not lift a ban. */
  readonly keepsBan?: boolean;
}

/**
 * Makes a membership event about somebody else, which goes to the target's server also where that may have nobody in
 * the room: it would not hear otherwise that an invitation is taken back or a knock refused.
 *
 * @throws MatrixError as createEvent
 */
export async function createMembershipEvent(ctx: RoomsContext, change: MembershipOfAnother): Promise<EventId> {
  const { roomId, sender, target, content, keepsBan = false } = change;
  const server = serverOutside(ctx, target, await membershipOf(ctx.database.pool, roomId, target));
  const draft = { roomId, sender, type: "m.room.member", stateKey: target, content };
  const event = await createEvent(ctx, draft, async (tx, { eventId, streamId, stateBefore }) => {
    if (keepsBan) await requireNoBan(tx, target, stateBefore);
    if (server === undefined || streamId === null) return;
    await addToOutbox(tx, { eventId, streamId, destinations: [server] });
  });
  return event.eventId;
}

/** The server of somebody who was invited or knocked, or of whom we know nothing. */
function serverOutside(ctx: RoomsContext, target: UserId, before: Member | undefined): ServerName | undefined {
  const server = serverNameOf(target);
  if (server === ctx.serverName) return undefined;
  return before === undefined || before.membership === "invite" || before.membership === "knock" ? server : undefined;
}

async function requireNoBan(tx: Connection, target: UserId, stateBefore: bigint | null): Promise<void> {
  const before = stateBefore === null ? undefined : await lookUpInSnapshot(tx, stateBefore, "m.room.member", target);
  if (before === undefined || (await loadMemberships(tx, [before])).get(before) !== "ban") return;
  throw new MatrixError(403, "M_FORBIDDEN", `${target} is banned from the room`);
}
