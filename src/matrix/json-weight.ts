import { isJsonArray, LosslessNumber, type JsonValue } from "./json.ts";

/** What V8 takes beside the characters and the members, about: an empty list of two characters is as large as a word. */
const STRING = 24;
const OBJECT = 48;
const MEMBER = 16;

/**
 * About how many bytes of memory a parsed value takes. A text's length says little: `[[],[],[]` unfolds to sixteen
 * times its size.
 */
export function jsonWeight(value: JsonValue | undefined): number {
  if (typeof value === "string") return STRING + value.length;
  if (typeof value !== "object" || value === null) return 0;
  if (value instanceof LosslessNumber) return OBJECT + value.value.length;
  let weight = OBJECT;
  if (isJsonArray(value)) {
    for (const element of value) weight += MEMBER + jsonWeight(element);
    return weight;
  }
  for (const key of Object.keys(value)) weight += MEMBER + key.length + jsonWeight(value[key]);
  return weight;
}
