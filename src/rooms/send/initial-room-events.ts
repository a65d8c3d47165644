import { MatrixError } from "../../federation-api/matrix-error.ts";
import { isUserId } from "../../matrix/identifiers.ts";
import type { RoomAlias, UserId } from "../../matrix/identifiers.ts";
import { isJsonObject } from "../../matrix/json.ts";
import type { JsonObject } from "../../matrix/json.ts";
import type { RoomVersion, RoomVersionRules } from "../../matrix/room-versions.ts";

type Preset = "private_chat" | "public_chat" | "trusted_private_chat";

export interface InitialStateEvent {
  readonly type: string;
  readonly stateKey: string;
  readonly content: JsonObject;
}

/** What a client asks of a new room. */
export interface NewRoom {
  readonly version: RoomVersion;
  readonly preset: Preset;
  readonly name?: string | undefined;
  readonly topic?: string | undefined;
  readonly aliasName?: string | undefined;
  readonly invite: readonly UserId[];
  readonly isDirect: boolean;
  readonly initialState: readonly InitialStateEvent[];
  readonly creationContent: JsonObject;
  readonly powerLevelOverride: JsonObject;
  /** The first power levels as they are, instead of the preset's with their override. */
  readonly powerLevels?: JsonObject;
}

/** The content of the create event; the room version's own keys can't be overridden. */
export function createContentOf(room: NewRoom, creator: UserId, rules: RoomVersionRules): JsonObject {
  const trusted = room.preset === "trusted_private_chat" ? room.invite : [];
  const additional = [...new Set([...additionalCreatorsOf(room), ...trusted])];
  const { creator: _ignored, ...asked } = room.creationContent;
  return {
    ...asked,
    ...(rules.privilegedCreators && additional.length > 0 ? { additional_creators: additional } : {}),
    ...(rules.creatorIsSender ? {} : { creator }),
    room_version: rules.version,
  };
}

function additionalCreatorsOf(room: NewRoom): readonly UserId[] {
  const asked = room.creationContent["additional_creators"];
  if (asked === undefined) {
    return [];
  }
  if (!Array.isArray(asked) || !asked.every(isUserId)) {
    throw new MatrixError(400, "M_BAD_JSON", "body.creation_content.additional_creators: expected user ids");
  }
  return asked;
}

/**
 * The state events after the creator's join, in the order that the specification gives. An event of `initial_state`
 * replaces what the preset would have set.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
 */
export function initialRoomEvents(
  room: NewRoom,
  creator: UserId,
  rules: RoomVersionRules,
  alias: RoomAlias | undefined,
): readonly InitialStateEvent[] {
  const state = (type: string, content: JsonObject): InitialStateEvent => ({ type, stateKey: "", content });
  const given = new Set(room.initialState.filter(({ stateKey }) => stateKey === "").map(({ type }) => type));
  return [
    state("m.room.power_levels", room.powerLevels ?? powerLevelsOf(room, creator, rules)),
    ...(alias === undefined ? [] : [state("m.room.canonical_alias", { alias })]),
    ...presetEvents(room.preset).filter(({ type }) => !given.has(type)),
    ...room.initialState,
    ...(room.name === undefined ? [] : [state("m.room.name", { name: room.name })]),
    ...(room.topic === undefined
      ? []
      : [state("m.room.topic", { topic: room.topic, "m.topic": { "m.text": [{ body: room.topic }] } })]),
  ];
}

function presetEvents(preset: Preset): readonly InitialStateEvent[] {
  const isPublic = preset === "public_chat";
  return [
    { type: "m.room.join_rules", stateKey: "", content: { join_rule: isPublic ? "public" : "invite" } },
    { type: "m.room.history_visibility", stateKey: "", content: { history_visibility: "shared" } },
    { type: "m.room.guest_access", stateKey: "", content: { guest_access: isPublic ? "forbidden" : "can_join" } },
  ];
}

function powerLevelsOf(room: NewRoom, creator: UserId, rules: RoomVersionRules): JsonObject {
  const users = [creator, ...(room.preset === "trusted_private_chat" ? room.invite : [])];
  const levels: JsonObject = {
    // v12 on: creators outrank every number, and may not be listed.
    users: rules.privilegedCreators ? {} : Object.fromEntries(users.map((user) => [user, 100])),
    users_default: 0,
    events: {
      "m.room.name": 50,
      "m.room.power_levels": 100,
      "m.room.history_visibility": 100,
      "m.room.canonical_alias": 50,
      "m.room.avatar": 50,
      "m.room.tombstone": rules.privilegedCreators ? 150 : 100,
      "m.room.server_acl": 100,
      "m.room.encryption": 100,
    },
    events_default: 0,
    state_default: 50,
    ban: 50,
    kick: 50,
    redact: 50,
    invite: room.preset === "public_chat" ? 50 : 0,
    ...room.powerLevelOverride,
  };
  if (rules.privilegedCreators && namesACreator(levels, [...users, ...additionalCreatorsOf(room)])) {
    throw new MatrixError(
      400,
      "M_INVALID_ROOM_STATE",
      "body.power_level_content_override.users: creators have no power level in this room version",
    );
  }
  return levels;
}

function namesACreator(levels: JsonObject, creators: readonly UserId[]): boolean {
  const users = levels["users"];
  return isJsonObject(users) && creators.some((creator) => users[creator] !== undefined);
}
