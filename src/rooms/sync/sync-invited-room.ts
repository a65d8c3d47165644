import type { JsonObject, JsonValue } from "../../matrix/json.ts";
import { isJsonObject } from "../../matrix/json.ts";
import { loadEvent } from "../../storage/events.ts";
import { loadInviteRoomStates } from "../../storage/invites.ts";
import { loadRoom } from "../../storage/rooms.ts";
import type { LocalMembershipChange } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { stripped, strippedState } from "../read/stripped-state.ts";

/** @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_invited-room */
export async function invitedRoom(ctx: RoomsContext, invite: LocalMembershipChange): Promise<JsonObject> {
  return { invite_state: { events: await strippedEvents(ctx, invite) } };
}

/** @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_knocked-room */
export async function knockedRoom(ctx: RoomsContext, knock: LocalMembershipChange): Promise<JsonObject> {
  return { knock_state: { events: await strippedEvents(ctx, knock) } };
}

/** As the inviting server told it, or else of our own room; and the user's own member event. */
async function strippedEvents(ctx: RoomsContext, change: LocalMembershipChange): Promise<readonly JsonValue[]> {
  const { pool } = ctx.database;
  const told = (await loadInviteRoomStates(pool, [change.eventId])).get(change.eventId);
  const state = told ?? (await currentStrippedState(ctx, change));
  const member = await loadEvent(pool, change.eventId);
  const holdsMember = state.some(
    (event) => isJsonObject(event) && event["type"] === "m.room.member" && event["state_key"] === change.userId,
  );
  return member === undefined || holdsMember ? state : [...state, stripped(member)];
}

async function currentStrippedState(
  ctx: RoomsContext,
  { roomId }: LocalMembershipChange,
): Promise<readonly JsonObject[]> {
  const room = await loadRoom(ctx.database.pool, roomId);
  const snapshotId = room?.currentSnapshotId ?? null;
  return snapshotId === null ? [] : strippedState(ctx.database.pool, snapshotId);
}
