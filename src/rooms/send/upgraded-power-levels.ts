import { creatorsOf } from "../../matrix/authorization/create.ts";
import { DEFAULT_LEVELS, namedLevel, parseLevel, requiredLevel } from "../../matrix/authorization/levels.ts";
import type { UserId } from "../../matrix/identifiers.ts";
import { isJsonObject, type JsonObject, type JsonValue } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import type { PowerState } from "../read/power-state.ts";

const LEVELS: readonly string[] = Object.keys(DEFAULT_LEVELS);
const TABLES: readonly string[] = ["users", "events", "notifications"];

export interface UpgradedPowerLevels {
  /** With which the new room begins: its maker has the power for all that is copied. */
  readonly first: JsonObject;
  /** The old room's, where those differ. */
  readonly last: JsonObject | undefined;
}

/**
 * The power levels of a room's replacement: the old room's, in the form of the new room's version. From version 12 on
 * creators are listed nowhere; where such a room is replaced by one of an older version, they are given the highest
 * level that anything needs.
 *
 * @param people the new room's creators, the upgrading user first, and whom it bans: only who is above them can
 */
export function upgradedPowerLevels(
  old: PowerState,
  rules: RoomVersionRules,
  { creators, banned }: { readonly creators: readonly [UserId, ...UserId[]]; readonly banned: readonly string[] },
): UpgradedPowerLevels {
  const content = old.state("m.room.power_levels", "")?.pdu.content ?? {};
  const levels = withNumbers(content, old.rules);
  const users = isJsonObject(levels["users"]) ? levels["users"] : {};
  if (rules.privilegedCreators) {
    const others = Object.entries(users).filter(([user]) => !creators.some((creator) => creator === user));
    return { first: { ...levels, users: Object.fromEntries(others) }, last: undefined };
  }
  const most = highestLevel(levels, banned);
  const create = old.state("m.room.create", "");
  const former = old.rules.privilegedCreators && create !== undefined ? creatorsOf(create, old.rules) : [];
  const kept = { ...users, ...Object.fromEntries(former.map((creator) => [creator, most])) };
  const [creator] = creators;
  const own = kept[creator] ?? levels["users_default"] ?? 0;
  const last = { ...levels, users: kept };
  if (typeof own === "number" && own >= most) return { first: last, last: undefined };
  return { first: { ...levels, users: { ...kept, [creator]: most } }, last };
}

/**
 * The old room's power levels with nobody but moderators left to talk or invite; undefined where that is so already.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-16
 */
export function closedPowerLevels({ rules, state }: PowerState): JsonObject | undefined {
  const event = state("m.room.power_levels", "");
  const base = Number(namedLevel("users_default", event, rules));
  const wanted = Math.max(50, Number.isFinite(base) ? base + 1 : 50);
  const raised = (["events_default", "invite"] as const).filter((name) => !(requiredNumber(name) >= wanted));
  if (raised.length === 0) return undefined;
  return { ...event?.pdu.content, ...Object.fromEntries(raised.map((name) => [name, wanted])) };

  function requiredNumber(name: "events_default" | "invite"): number {
    return Number(requiredLevel(name, state, rules));
  }
}

/** Versions before 10 also allow strings, versions before 6 floats: a newer room would refuse them. */
function withNumbers(content: JsonObject, rules: RoomVersionRules): JsonObject {
  const entries = Object.entries(content).flatMap(
    ([key, value]): readonly (readonly [string, JsonValue | undefined])[] => {
      if (LEVELS.includes(key)) return numberEntry(key, value, rules);
      if (!TABLES.includes(key)) return [[key, value]];
      if (!isJsonObject(value)) return [];
      return [[key, Object.fromEntries(Object.entries(value).flatMap(([name, one]) => numberEntry(name, one, rules)))]];
    },
  );
  return Object.fromEntries(entries);
}

function numberEntry(
  key: string,
  value: JsonValue | undefined,
  rules: RoomVersionRules,
): readonly (readonly [string, number])[] {
  const level = Number(parseLevel(value, rules) ?? Number.NaN);
  return Number.isSafeInteger(level) ? [[key, level]] : [];
}

/** Enough for everything that the room's rules ask of anybody. */
function highestLevel(levels: JsonObject, banned: readonly string[]): number {
  const users = isJsonObject(levels["users"]) ? levels["users"] : {};
  const aboveBanned = banned
    .map((user) => users[user] ?? levels["users_default"] ?? 0)
    .map((level) => Number(level) + 1);
  const events = isJsonObject(levels["events"]) ? Object.values(levels["events"]) : [];
  const named = LEVELS.filter((name) => name !== "users_default").map(
    (name) => levels[name] ?? DEFAULT_LEVELS[name as keyof typeof DEFAULT_LEVELS],
  );
  return Math.max(100, ...[...events, ...named, ...aboveBanned].filter((level) => typeof level === "number"));
}
