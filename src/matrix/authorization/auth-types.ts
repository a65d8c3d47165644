import type { Pdu } from "../event.ts";
import type { JsonObject } from "../json.ts";
import type { RoomVersionRules } from "../room-versions.ts";
import { objectProperty, stringProperty } from "./content.ts";

type AuthType = readonly [type: string, stateKey: string];

/**
 * The auth events selection: which entries of the room state an event of this form is authorised by. None appears
 * twice. Not all of them need to exist.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection
 */
export function authTypesFor(
  pdu: Pick<Pdu, "type" | "sender" | "state_key" | "content">,
  rules: RoomVersionRules,
): readonly AuthType[] {
  if (pdu.type === "m.room.create") {
    return [];
  }
  const types: AuthType[] = [
    ["m.room.power_levels", ""],
    ["m.room.member", pdu.sender],
  ];
  // v12 on: the room id names the create event, so auth_events don't.
  if (!rules.roomIdIsCreateEventHash) {
    types.push(["m.room.create", ""]);
  }
  if (pdu.type === "m.room.member" && pdu.state_key !== undefined) {
    addMemberTypes(types, pdu, pdu.state_key, rules);
  }
  return types;
}

function addMemberTypes(
  types: AuthType[],
  { sender, content }: Pick<Pdu, "sender" | "content">,
  target: string,
  rules: RoomVersionRules,
): void {
  if (target !== sender) {
    types.push(["m.room.member", target]);
  }
  const membership = stringProperty(content, "membership");
  if (isDecidedByJoinRules(membership, rules)) {
    types.push(["m.room.join_rules", ""]);
  }
  const token = membership === "invite" ? thirdPartyToken(content) : undefined;
  if (token !== undefined) {
    types.push(["m.room.third_party_invite", token]);
  }
  // v8 on: the member event of the user whose server vouches for a restricted join.
  const authorisingUser = membership === "join" && rules.restrictedJoins ? vouchingUser(content) : undefined;
  if (authorisingUser !== undefined && authorisingUser !== sender && authorisingUser !== target) {
    types.push(["m.room.member", authorisingUser]);
  }
}

function isDecidedByJoinRules(membership: string | undefined, rules: RoomVersionRules): boolean {
  return membership === "join" || membership === "invite" || (membership === "knock" && rules.knocking);
}

function vouchingUser(content: JsonObject): string | undefined {
  return stringProperty(content, "join_authorised_via_users_server");
}

function thirdPartyToken(content: JsonObject): string | undefined {
  const invite = objectProperty(content, "third_party_invite");
  const signed = invite && objectProperty(invite, "signed");
  return signed && stringProperty(signed, "token");
}
