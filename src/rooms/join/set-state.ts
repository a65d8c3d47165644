import type { EventId, RoomId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { checkCanonicalAlias } from "../accounts/canonical-alias.ts";
import type { RoomsContext } from "../context.ts";
import { createEvent } from "../events/create-event.ts";
import { setMembership } from "./set-membership.ts";

interface StateToSet {
  readonly roomId: RoomId;
  readonly sender: UserId;
  readonly type: string;
  readonly stateKey: string;
  readonly content: JsonObject;
}

/**
 * Sets a piece of a room's state as one of our users asks.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey
 * @throws MatrixError as createEvent; 400 M_BAD_ALIAS for a canonical alias that does not name the room
 */
export async function setState(ctx: RoomsContext, change: StateToSet): Promise<EventId> {
  const { roomId, sender, type, stateKey, content } = change;
  if (type === "m.room.member") return await setMembership(ctx, { roomId, sender, target: stateKey, content });
  if (type === "m.room.canonical_alias" && stateKey === "") await checkCanonicalAlias(ctx, roomId, content);
  return (await createEvent(ctx, change)).eventId;
}
