import { prevEventIds } from "../event.ts";
import type { Event } from "../event.ts";
import { isUserId, serverNameOf } from "../identifiers.ts";
import type { UserId } from "../identifiers.ts";
import type { JsonValue } from "../json.ts";
import { rulesOf } from "../room-versions.ts";
import type { RoomVersionRules } from "../room-versions.ts";
import { property } from "./content.ts";
import { allow, reject } from "./verdict.ts";
import type { AuthVerdict } from "./verdict.ts";

/**
 * Who created the room. v1–v10: `content.creator`; v11 on: the sender; v12 on: and `additional_creators`.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#mroomcreate
 */
export function creatorsOf(create: Event, rules: RoomVersionRules): readonly UserId[] {
  const { content, sender } = create.pdu;
  if (!rules.creatorIsSender) {
    const creator = property(content, "creator");
    return isUserId(creator) ? [creator] : [];
  }
  const additional = rules.privilegedCreators ? property(content, "additional_creators") : undefined;
  return Array.isArray(additional) ? [sender, ...additional.filter(isUserId)] : [sender];
}

/**
 * The rules for `m.room.create`: rule 1 in every version.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v12/#authorization-rules
 */
export function checkCreate(event: Event, rules: RoomVersionRules): AuthVerdict {
  const { pdu } = event;

  // v1 on, rule 1.1: if it has any prev_events, reject.
  if (prevEventIds(pdu).length > 0) {
    return reject("create.prev-events", "a create event has no prev_events");
  }

  // v1–v11, rule 1.2: if the domain of the room_id does not match the domain of the sender, reject.
  // v12 on, rule 1.2: if the event has a room_id, reject.
  const roomIdFits = rules.roomIdIsCreateEventHash
    ? pdu.room_id === undefined
    : serverNameOf(event.roomId) === serverNameOf(pdu.sender);
  if (!roomIdFits) {
    return reject("create.room-id", `${pdu.sender} can't create the room ${event.roomId} by such an event`);
  }

  // v1 on, rule 1.3: if content.room_version is present and is not a recognised version, reject.
  if (!isKnownVersionOrAbsent(property(pdu.content, "room_version"))) {
    return reject("create.room-version", "the room version is not known");
  }

  // v1–v10, rule 1.4: if content has no creator property, reject.
  if (!rules.creatorIsSender && property(pdu.content, "creator") === undefined) {
    return reject("create.creator", "the content has no creator");
  }

  // v12 on, rule 1.4: if additional_creators is present and is not an array of user ids, reject.
  if (rules.privilegedCreators && !isUserListOrAbsent(property(pdu.content, "additional_creators"))) {
    return reject("create.additional-creators", "additional_creators is not a list of user ids");
  }

  // v1 on, last of rule 1: otherwise, allow.
  return allow("create");
}

function isUserListOrAbsent(value: JsonValue | undefined): boolean {
  return value === undefined || (Array.isArray(value) && value.every(isUserId));
}

function isKnownVersionOrAbsent(value: JsonValue | undefined): boolean {
  return value === undefined || (typeof value === "string" && rulesOf(value) !== undefined);
}
