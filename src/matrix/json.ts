import { LosslessNumber } from "lossless-json";

export type JsonValue = null | boolean | number | string | LosslessNumber | readonly JsonValue[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: JsonValue | undefined;
}

/** A number whose text `JSON.parse` would lose: beyond 2^53, with a fraction or with an exponent. */
export { LosslessNumber };

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof LosslessNumber);
}
