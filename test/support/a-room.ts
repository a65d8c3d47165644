import type { RoomId, UserId } from "../../src/matrix/identifiers.ts";
import { createRoom } from "../../src/rooms/send/create-room.ts";
import type { NewRoom } from "../../src/rooms/send/initial-room-events.ts";
import type { RoomsContext } from "../../src/rooms/context.ts";

export const ALICE: UserId = "@alice:us.example";

/** A public room of `@alice:us.example`. */
export function aRoom(ctx: RoomsContext, changes: Partial<NewRoom> = {}): Promise<RoomId> {
  return createRoom(ctx, ALICE, {
    version: "11",
    preset: "public_chat",
    invite: [],
    isDirect: false,
    initialState: [],
    creationContent: {},
    powerLevelOverride: {},
    ...changes,
  });
}
