import type { EventId, RoomId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { checkCanonicalAlias } from "../accounts/canonical-alias.ts";
import { createEvent } from "../events/create-event.ts";
import type { ReadContext } from "../read/full-state-wait.ts";
import { setMembership } from "./set-membership.ts";

interface StateToSet {
  readonly roomId: RoomId;
  readonly sender: UserId;
  readonly type: string;
  readonly stateKey: string;
  readonly content: JsonObject;
  /** Ends a wait for the full state. */
  readonly signal?: AbortSignal;
}

/**
 * Sets a piece of a room's state as one of our users asks.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey
 * @throws FullStateMissing where a member is to be removed; MatrixError as createEvent, 400 M_BAD_ALIAS for a canonical alias that does not name the room
 */
export async function setState(ctx: ReadContext, change: StateToSet): Promise<EventId> {
  const { roomId, sender, type, stateKey, content, signal } = change;
  if (type === "m.room.member") {
    const end = signal === undefined ? {} : { signal };
    return await setMembership(ctx, { roomId, sender, target: stateKey, content, ...end });
  }
  if (type === "m.room.canonical_alias" && stateKey === "") await checkCanonicalAlias(ctx, roomId, content);
  return (await createEvent(ctx, { roomId, sender, type, stateKey, content })).eventId;
}
