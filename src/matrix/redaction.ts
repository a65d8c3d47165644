import type { Pdu } from "./event.ts";
import { isJsonObject } from "./json.ts";
import type { JsonObject, JsonValue } from "./json.ts";
import type { RedactionRules, RoomVersionRules } from "./room-versions.ts";

const TOP_LEVEL_KEYS = [
  "event_id",
  "type",
  "room_id",
  "sender",
  "state_key",
  "content",
  "hashes",
  "signatures",
  "depth",
  "prev_events",
  "auth_events",
  "origin_server_ts",
] as const;

/** v1–v10; room version 11 lets them go. */
const OBSOLETE_TOP_LEVEL_KEYS = ["prev_state", "origin", "membership"] as const;

/**
 * What is left of an event when it is redacted: all that the auth rules, the event id and signatures depend on.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v11/#redactions
 */
export function redact(pdu: Pdu, rules: RoomVersionRules): Pdu {
  const kept: { [key: string]: JsonValue | undefined } = pick(pdu, TOP_LEVEL_KEYS);
  if (rules.redaction.keepObsoleteTopLevelKeys) Object.assign(kept, pick(pdu, OBSOLETE_TOP_LEVEL_KEYS));
  kept["content"] = redactedContent(pdu, rules);
  return kept as Pdu;
}

const SURVIVING: ReadonlySet<string> = new Set(TOP_LEVEL_KEYS);
const SURVIVING_ONCE: ReadonlySet<string> = new Set([...TOP_LEVEL_KEYS, ...OBSOLETE_TOP_LEVEL_KEYS]);

/** Whether {@link redact} leaves a member of this name, if with less content. */
export function survivesRedaction(key: string, rules: RoomVersionRules): boolean {
  return (rules.redaction.keepObsoleteTopLevelKeys ? SURVIVING_ONCE : SURVIVING).has(key);
}

/** What {@link redact} leaves of the content. */
export function redactedContent(pdu: Pdu, rules: RoomVersionRules): JsonObject {
  return isJsonObject(pdu.content) ? redactContent(pdu.type, pdu.content, rules.redaction) : {};
}

function pick(object: JsonObject, keys: readonly string[]): { [key: string]: JsonValue | undefined } {
  const picked: { [key: string]: JsonValue | undefined } = {};
  for (const key of keys) if (object[key] !== undefined) picked[key] = object[key];
  return picked;
}

function redactContent(type: string, content: JsonObject, rules: RedactionRules): JsonObject {
  if (type === "m.room.member") return redactMemberContent(content, rules);
  // v11 on.
  if (type === "m.room.create" && rules.keepCreateContent) return content;
  return pick(content, keptContentKeys(type, rules));
}

function keptContentKeys(type: string, rules: RedactionRules): readonly string[] {
  switch (type) {
    case "m.room.create":
      return ["creator"];
    case "m.room.join_rules":
      // v8 on: `allow`, without which a restricted room would turn into one nobody can join.
      return rules.keepJoinRulesAllow ? ["join_rule", "allow"] : ["join_rule"];
    case "m.room.power_levels":
      // v11 on: `invite`.
      return rules.keepPowerLevelsInvite ? [...POWER_LEVEL_KEYS, "invite"] : POWER_LEVEL_KEYS;
    case "m.room.history_visibility":
      return ["history_visibility"];
    case "m.room.aliases":
      // v1–v5 only.
      return rules.keepAliases ? ["aliases"] : [];
    case "m.room.redaction":
      // v11 on: `redacts` moved from the top level into the content.
      return rules.redactsInContent ? ["redacts"] : [];
    default:
      return [];
  }
}

const POWER_LEVEL_KEYS = [
  "ban",
  "events",
  "events_default",
  "kick",
  "redact",
  "state_default",
  "users",
  "users_default",
] as const;

function redactMemberContent(content: JsonObject, rules: RedactionRules): JsonObject {
  const kept = pick(content, ["membership"]);
  // v9 on.
  if (rules.keepJoinAuthorisedVia) Object.assign(kept, pick(content, ["join_authorised_via_users_server"]));
  // v11 on: of `third_party_invite` the key `signed` alone; other servers keep an empty object where it is absent.
  const invite = content["third_party_invite"];
  if (rules.keepThirdPartyInviteSigned && isJsonObject(invite)) kept["third_party_invite"] = pick(invite, ["signed"]);
  return kept;
}
