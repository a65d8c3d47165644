import { randomBytes } from "node:crypto";
import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { Event, Pdu } from "../../matrix/event.ts";
import { isRoomAlias } from "../../matrix/identifiers.ts";
import type { RoomAlias, RoomId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { rulesOf } from "../../matrix/room-versions.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import type { Connection } from "../../storage/database.ts";
import { loadEvents } from "../../storage/events.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { insertAlias } from "../../storage/room-aliases.ts";
import { insertRoom } from "../../storage/rooms.ts";
import { loadState } from "../../storage/state-snapshots.ts";
import { acceptEventWithin } from "../events/accept-event.ts";
import { authEventIdsFor, buildEvent } from "../events/build-event.ts";
import type { EventDraft } from "../events/build-event.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { createContentOf, initialRoomEvents } from "./initial-room-events.ts";
import type { NewRoom } from "./initial-room-events.ts";
import { inviteUser } from "./invite-user.ts";
import { memberContentOf } from "../accounts/profiles.ts";
import { signOwnEvent } from "../events/sign-own-event.ts";

/**
 * Makes a room of any version with its first events, in one transaction; the invitations follow, as they may need
 * other servers.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#creation
 * @throws MatrixError 400 M_ROOM_IN_USE, M_INVALID_ROOM_STATE; 403 where the room's own rules refuse an event
 */
export async function createRoom(ctx: RoomsContext, creator: UserId, room: NewRoom): Promise<RoomId> {
  const rules = rulesOf(room.version);
  if (rules === undefined) {
    throw new MatrixError(400, "M_UNSUPPORTED_ROOM_VERSION", `Room version ${room.version} is not known`);
  }
  const alias = aliasOf(ctx, room);
  const createEvent = buildCreateEvent(ctx, creator, createContentOf(room, creator, rules), rules);
  const { roomId } = createEvent;
  const drafts: readonly EventDraft[] = [
    {
      roomId,
      sender: creator,
      type: "m.room.member",
      stateKey: creator,
      content: { ...(await memberContentOf(ctx, creator)), membership: "join" },
    },
    ...initialRoomEvents(room, creator, rules, alias).map((event) => ({ roomId, sender: creator, ...event })),
  ];
  await commit(ctx, "create a room", async (tx) => {
    await insertRoom(tx, { roomId, roomVersion: rules.version });
    if (alias !== undefined && !(await insertAlias(tx, { alias, roomId, creator }))) {
      throw new MatrixError(400, "M_ROOM_IN_USE", `${alias} is taken`);
    }
    let last = await accept(ctx, tx, createEvent);
    for (const draft of drafts) {
      last = await accept(ctx, tx, await nextEvent(ctx, tx, { draft, last, rules }));
    }
  });
  for (const target of new Set(room.invite)) {
    await inviteUser(ctx, { roomId, sender: creator, target, isDirect: room.isDirect });
  }
  return roomId;
}

function aliasOf(ctx: RoomsContext, room: NewRoom): RoomAlias | undefined {
  if (room.aliasName === undefined) {
    return undefined;
  }
  const alias = `#${room.aliasName}:${ctx.serverName}`;
  if (!isRoomAlias(alias) || /[:\s\0]/.test(room.aliasName)) {
    throw new MatrixError(400, "M_INVALID_PARAM", "body.room_alias_name: no localpart of an alias");
  }
  return alias;
}

function buildCreateEvent(ctx: RoomsContext, sender: UserId, content: JsonObject, rules: RoomVersionRules): Event {
  const chosenRoomId: RoomId = `!${randomBytes(14).toString("base64url")}:${ctx.serverName}`;
  const unsigned: Pdu = {
    ...(rules.roomIdIsCreateEventHash ? {} : { room_id: chosenRoomId }),
    ...(rules.eventIdFormat === "chosen-by-sender"
      ? { event_id: `$${randomBytes(18).toString("base64url")}:${ctx.serverName}` }
      : {}),
    type: "m.room.create",
    state_key: "",
    sender,
    content,
    prev_events: [],
    auth_events: [],
    depth: 1,
    origin: ctx.serverName,
    origin_server_ts: ctx.now(),
  };
  return signOwnEvent(unsigned, rules, ctx);
}

async function nextEvent(
  ctx: RoomsContext,
  tx: Connection,
  { draft, last, rules }: { readonly draft: EventDraft; readonly last: StoredEvent; readonly rules: RoomVersionRules },
): Promise<Event> {
  if (last.stateAfter === null) {
    throw new Error(`event ${last.eventId} of a new room has no state`);
  }
  const state = await loadState(ctx.database, last.stateAfter, tx);
  const ids = authEventIdsFor(draft, state, rules);
  const authEvents = await loadEvents(tx, ids);
  const place = { prevEvents: [last], authEvents: ids.flatMap((id) => authEvents.get(id) ?? []), now: ctx.now() };
  return buildEvent(draft, place, rules, ctx);
}

async function accept(ctx: RoomsContext, tx: Connection, event: Event): Promise<StoredEvent> {
  const stored = await acceptEventWithin(ctx, tx, { event, origin: ctx.serverName });
  if (stored.rejection !== null || stored.softFailed) {
    const why = stored.rejection ?? "the state of the new room does not allow it";
    throw new MatrixError(403, "M_FORBIDDEN", `The new room refuses ${event.pdu.type}: ${why}`);
  }
  return stored;
}
