import { isJsonObject } from "../json.ts";
import type { JsonObject, JsonValue } from "../json.ts";

/**
 * A property of the content of an event that anybody may have written: event types and user ids are keys in there, and
 * `constructor` must not find what every JavaScript object inherits.
 */
export function property(object: JsonObject, key: string): JsonValue | undefined {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

export function stringProperty(object: JsonObject, key: string): string | undefined {
  const value = property(object, key);
  return typeof value === "string" ? value : undefined;
}

export function objectProperty(object: JsonObject, key: string): JsonObject | undefined {
  const value = property(object, key);
  return isJsonObject(value) ? value : undefined;
}
