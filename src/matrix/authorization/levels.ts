import type { Event, Pdu } from "../event.ts";
import type { UserId } from "../identifiers.ts";
import { isJsonObject, LosslessNumber } from "../json.ts";
import type { JsonObject, JsonValue } from "../json.ts";
import type { RoomVersionRules } from "../room-versions.ts";
import { property } from "./content.ts";
import { creatorsOf } from "./create.ts";
import type { AuthState } from "./verdict.ts";

/**
 * A power level. Infinity is the level of a creator in room version 12; a bigint stands only for what a number can't
 * hold exactly, so that `===` tells equal levels. NaN is a level that can't be read (v1–v9 let such into the power
 * levels): ask `level >= required` and `level < other`, never the opposite, and it allows nothing.
 */
export type Level = number | bigint;

/** The levels that stand at the top of the content, with what counts where they are missing. */
export const DEFAULT_LEVELS = {
  users_default: 0,
  events_default: 0,
  state_default: 50,
  ban: 50,
  redact: 50,
  kick: 50,
  invite: 0,
} as const;
export type NamedLevel = keyof typeof DEFAULT_LEVELS;

function exactLevel(integer: bigint): Level {
  const number = Number(integer);
  return Number.isSafeInteger(number) ? number : integer;
}

function truncated(float: number): Level | undefined {
  return Number.isFinite(float) ? exactLevel(BigInt(Math.trunc(float))) : undefined;
}

const INTEGER = /^-?[0-9]+$/;
const INTEGER_IN_STRING = /^\s*([+-]?)0*([0-9]+)\s*$/;

/**
 * Reads a power level, or answers undefined for what is none in this room version.
 *
 * v1–v9: strings that hold an integer count, with white space around it, a sign and zeros in front; v1–v5: so do
 * floats, cut off behind the point. v10 on: integers only.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v1/#mroompower_levels-events-accept-values-as-strings
 */
export function parseLevel(value: JsonValue | undefined, rules: RoomVersionRules): Level | undefined {
  if (typeof value === "number") {
    return Number.isInteger(value) || !rules.integerPowerLevels ? truncated(value) : undefined;
  }
  if (value instanceof LosslessNumber) {
    if (INTEGER.test(value.value)) {
      return exactLevel(BigInt(value.value));
    }
    return rules.integerPowerLevels ? undefined : truncated(Number(value.value));
  }
  if (typeof value === "string" && !rules.integerPowerLevels) {
    const [, sign, digits] = INTEGER_IN_STRING.exec(value) ?? [];
    if (digits === undefined) {
      return undefined;
    }
    return exactLevel(sign === "-" ? -BigInt(digits) : BigInt(digits));
  }
  return undefined;
}

function levelIn(content: JsonObject, key: string, rules: RoomVersionRules): Level | undefined {
  const value = property(content, key);
  return value === undefined ? undefined : (parseLevel(value, rules) ?? NaN);
}

function levelInTable(
  powerLevels: Event | undefined,
  table: "events" | "users",
  key: string,
  rules: RoomVersionRules,
): Level | undefined {
  const value = powerLevels && property(powerLevels.pdu.content, table);
  if (value === undefined) {
    return undefined;
  }
  return isJsonObject(value) ? levelIn(value, key, rules) : NaN;
}

/**
 * The level of `ban`, `kick`, `redact`, `invite` and so on.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels
 */
export function namedLevel(name: NamedLevel, powerLevels: Event | undefined, rules: RoomVersionRules): Level {
  const own = powerLevels && levelIn(powerLevels.pdu.content, name, rules);
  return own ?? DEFAULT_LEVELS[name];
}

/**
 * The power level of a user.
 *
 * v12 on: a creator outranks every number, whatever the power levels say. v1–v11: where there is no
 * `m.room.power_levels`, the creator has 100. Everybody else: `users`, then `users_default`, then 0.
 *
 * @param create the room's create event; where it is unknown nobody counts as its creator
 */
export function userLevel(
  user: string,
  create: Event | undefined,
  powerLevels: Event | undefined,
  rules: RoomVersionRules,
): Level {
  const isCreator = () => create !== undefined && creatorsOf(create, rules).includes(user as UserId);
  if (rules.privilegedCreators && isCreator()) {
    return Infinity;
  }
  if (powerLevels === undefined) {
    return !rules.privilegedCreators && isCreator() ? 100 : 0;
  }
  return levelInTable(powerLevels, "users", user, rules) ?? namedLevel("users_default", powerLevels, rules);
}

/**
 * The level that is needed to send an event of this type: `events`, then `state_default` (50) or `events_default` (0);
 * these defaults hold in a room without `m.room.power_levels`, too.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels
 */
export function eventLevel(
  event: Pick<Pdu, "type" | "state_key">,
  powerLevels: Event | undefined,
  rules: RoomVersionRules,
): Level {
  const fallback = event.state_key === undefined ? "events_default" : "state_default";
  return levelInTable(powerLevels, "events", event.type, rules) ?? namedLevel(fallback, powerLevels, rules);
}

/** {@link userLevel} in a state. */
export function powerLevelOf(user: string, state: AuthState, rules: RoomVersionRules): Level {
  return userLevel(user, state("m.room.create", ""), state("m.room.power_levels", ""), rules);
}

/** {@link eventLevel} in a state, or the level of an action (`invite`, `kick`, `ban`, `redact`) where a name is given. */
export function requiredLevel(
  what: NamedLevel | Pick<Pdu, "type" | "state_key">,
  state: AuthState,
  rules: RoomVersionRules,
): Level {
  const powerLevels = state("m.room.power_levels", "");
  return typeof what === "string" ? namedLevel(what, powerLevels, rules) : eventLevel(what, powerLevels, rules);
}
