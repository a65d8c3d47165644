import { serverNameOf, type EventId, type RoomId, type ServerName, type UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { membershipOf, type Member } from "../../storage/memberships.ts";
import { addToOutbox } from "../../storage/outbox.ts";
import type { RoomsContext } from "../context.ts";
import { createEvent } from "../events/create-event.ts";

export interface MembershipOfAnother {
  readonly roomId: RoomId;
  readonly sender: UserId;
  readonly target: UserId;
  /** `membership` included. */
  readonly content: JsonObject;
}

/**
 * Makes a membership event about somebody else, which goes to the target's server also where that may have nobody in
 * the room: it would not hear otherwise that an invitation is taken back or a knock refused.
 *
 * @throws MatrixError as createEvent
 */
export async function createMembershipEvent(ctx: RoomsContext, change: MembershipOfAnother): Promise<EventId> {
  const { roomId, sender, target, content } = change;
  const server = serverOutside(ctx, target, await membershipOf(ctx.database.pool, roomId, target));
  const draft = { roomId, sender, type: "m.room.member", stateKey: target, content };
  const event = await createEvent(ctx, draft, async (tx, { eventId, streamId }) => {
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
