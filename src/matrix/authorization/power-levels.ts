import type { Event } from "../event.ts";
import { isUserId } from "../identifiers.ts";
import { isJsonObject } from "../json.ts";
import type { JsonObject } from "../json.ts";
import type { RoomVersionRules } from "../room-versions.ts";
import { objectProperty, property } from "./content.ts";
import { creatorsOf } from "./create.ts";
import { DEFAULT_LEVELS, parseLevel, userLevel } from "./levels.ts";
import type { Level, NamedLevel } from "./levels.ts";
import { allow, reject } from "./verdict.ts";
import type { AuthState, AuthVerdict } from "./verdict.ts";

const NAMED_LEVELS = Object.keys(DEFAULT_LEVELS) as readonly NamedLevel[];
type Table = "events" | "notifications" | "users";

/**
 * The rules for `m.room.power_levels`: rule 10 of room versions 1–2 and 12, rule 9 of the others. The numbers below
 * are those of version 12.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v12/#authorization-rules
 */
export function checkPowerLevels(event: Event, create: Event, state: AuthState, rules: RoomVersionRules): AuthVerdict {
  const { sender, content } = event.pdu;

  // v10 on, rules 10.1–10.3: every level is an integer, and events, notifications and users are objects of such.
  // v1–v9: that is asked of users alone, where integers in strings count, too.
  const malformed = rules.integerPowerLevels ? unreadableLevel(content, rules) : unreadableUser(content, rules);
  if (malformed !== undefined) {
    return reject("power_levels.malformed", malformed);
  }
  const users = checkUsers(content, create, rules);
  if (users !== undefined) {
    return users;
  }

  // v1 on, rule 10.5: if there is no previous m.room.power_levels event in the room, allow.
  const previous = state("m.room.power_levels", "");
  if (previous === undefined) {
    return allow("power_levels.first");
  }

  // v1–v9: what may be there can't always be compared. Refused, as by other servers.
  const unreadable = unreadableLevel(previous.pdu.content, rules) ?? unreadableLevel(content, rules);
  if (unreadable !== undefined) {
    return reject("power_levels.malformed", unreadable);
  }
  const senderLevel = userLevel(sender, create, previous, rules);
  const change: Change = { old: previous.pdu.content, new: content, sender, senderLevel, rules };
  return (
    checkNamedLevels(change) ??
    checkTable(change, "events") ??
    // v6 on: changes of notifications are checked as those of events are.
    (rules.checkNotificationLevels ? checkTable(change, "notifications") : undefined) ??
    checkTable(change, "users") ??
    // v1 on, last of rule 10: otherwise, allow.
    allow("power_levels")
  );
}

/** Says which of the levels that are ever compared can't be read, if there is one. */
function unreadableLevel(content: JsonObject, rules: RoomVersionRules): string | undefined {
  const isUnreadable = (name: string): boolean =>
    property(content, name) !== undefined && parseLevel(property(content, name), rules) === undefined;
  const name = NAMED_LEVELS.find(isUnreadable);
  if (name !== undefined) {
    return `${name} is not a power level`;
  }
  return (
    unreadableEntry(content, "events", rules) ??
    (rules.checkNotificationLevels ? unreadableEntry(content, "notifications", rules) : undefined) ??
    unreadableUser(content, rules)
  );
}

function unreadableUser(content: JsonObject, rules: RoomVersionRules): string | undefined {
  return unreadableEntry(content, "users", rules);
}

function unreadableEntry(content: JsonObject, name: Table, rules: RoomVersionRules): string | undefined {
  const table = property(content, name);
  if (table === undefined) {
    return undefined;
  }
  if (!isJsonObject(table)) {
    return `${name} is not an object`;
  }
  const entry = Object.keys(table).find((key) => parseLevel(table[key], rules) === undefined);
  return entry === undefined ? undefined : `the value of ${entry} in ${name} is not a power level`;
}

function checkUsers(content: JsonObject, create: Event, rules: RoomVersionRules): AuthVerdict | undefined {
  // v1 on, rule 10.3: the keys of users are user ids.
  const users = Object.keys(objectProperty(content, "users") ?? {});
  const notAUser = users.find((user) => !isUserId(user));
  if (notAUser !== undefined) {
    return reject("power_levels.not-a-user", `${JSON.stringify(notAUser)} is not a user id`);
  }
  // v12 on, rule 10.4: if users holds a creator, reject.
  const creators: readonly string[] = rules.privilegedCreators ? creatorsOf(create, rules) : [];
  const creator = users.find((user) => creators.includes(user));
  return creator === undefined ? undefined : reject("power_levels.creator", `${creator} is a creator`);
}

interface Change {
  readonly old: JsonObject;
  readonly new: JsonObject;
  readonly sender: string;
  readonly senderLevel: Level;
  readonly rules: RoomVersionRules;
}

/** v1 on, rule 10.6: the properties at the top that were added, changed or removed. */
function checkNamedLevels(change: Change): AuthVerdict | undefined {
  for (const name of NAMED_LEVELS) {
    const before = parseLevel(property(change.old, name), change.rules);
    const after = parseLevel(property(change.new, name), change.rules);
    if (before === after) {
      continue;
    }
    // v1 on, rule 10.6.1: if the current value is higher than the sender's current power level, reject.
    if (before !== undefined && before > change.senderLevel) {
      return reject("power_levels.current-too-high", `${name} is ${before}, above ${change.sender}'s level`);
    }
    // v1 on, rule 10.6.2: if the new value is higher than the sender's current power level, reject.
    if (after !== undefined && after > change.senderLevel) {
      return reject("power_levels.new-too-high", `${name} becomes ${after}, above ${change.sender}'s level`);
    }
  }
  return undefined;
}

/** v1 on, rules 10.7–10.10: the entries of `events`, `users` and (v6 on) `notifications`. */
function checkTable(change: Change, name: Table): AuthVerdict | undefined {
  const oldTable = objectProperty(change.old, name) ?? {};
  const newTable = objectProperty(change.new, name) ?? {};
  const isUsers = name === "users";
  for (const key of new Set([...Object.keys(oldTable), ...Object.keys(newTable)])) {
    const before = parseLevel(property(oldTable, key), change.rules);
    const after = parseLevel(property(newTable, key), change.rules);
    if (before === after) {
      continue;
    }
    if (before !== undefined) {
      // v1 on, rule 10.7 (events, notifications): if the current value is greater than the sender's, reject;
      // rule 10.9 (users other than the sender): if it is greater than or equal to the sender's, reject.
      const tooHigh =
        isUsers && key !== change.sender ? before >= change.senderLevel : !isUsers && before > change.senderLevel;
      if (tooHigh) {
        return reject("power_levels.current-too-high", `${key} in ${name} has ${before}, not below ${change.sender}'s`);
      }
    }
    // v1 on, rules 10.8 and 10.10: if the new value is greater than the sender's, reject.
    if (after !== undefined && after > change.senderLevel) {
      return reject("power_levels.new-too-high", `${key} in ${name} becomes ${after}, above ${change.sender}'s level`);
    }
  }
  return undefined;
}
