import { isJsonObject, stringifyJson } from "../matrix/json.ts";
import type { JsonValue } from "../matrix/json.ts";

/** The text of an answer that is written while it is read from the database. */
export type LongJson = AsyncGenerator<string, void>;

/** JSON texts, some hundred at a time: what grows with a room is never in memory as a whole. */
export type TextBatches = AsyncIterable<readonly string[]>;

const AS_MEMBERS = Symbol("members of an object");

/** Batches of `"name":value`, which stand for an object instead of a list. */
type MemberBatches = TextBatches & { readonly [AS_MEMBERS]: true };

/** A JSON value in which batches of texts may stand for lists and objects; not inside of arrays. */
export type LongValue = JsonValue | TextBatches | LongObject;

export interface LongObject {
  readonly [key: string]: LongValue | undefined;
}

/** An object that is read while it is written, from batches of the texts that {@link memberText} makes. */
export function longMembers(batches: TextBatches): MemberBatches {
  return { [AS_MEMBERS]: true, [Symbol.asyncIterator]: () => batches[Symbol.asyncIterator]() };
}

export function memberText(name: string, value: JsonValue): string {
  return `${JSON.stringify(name)}:${stringifyJson(value)}`;
}

export function isLongJson(answer: JsonValue | LongJson): answer is LongJson {
  return isTextBatches(answer);
}

/** Writes a value. What stands before the first batch can be asked for at once; all else comes as it is read. */
export async function* longJson(value: LongValue): LongJson {
  if (isTextBatches(value)) yield* joined(value, AS_MEMBERS in value ? "{}" : "[]");
  else if (isObjectWithBatches(value)) yield* members(value);
  else yield stringifyJson(value as JsonValue);
}

/** As version 1 of some endpoints answers: the object behind its status. */
export async function* behindStatus(object: LongJson): LongJson {
  yield "[200,";
  yield* object;
  yield "]";
}

function isTextBatches(value: LongValue | LongJson | undefined): value is TextBatches {
  return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}

function isObjectWithBatches(value: LongValue | undefined): value is LongObject {
  return isJsonObject(value) && Object.values(value as LongObject).some(holdsBatches);
}

function holdsBatches(value: LongValue | undefined): boolean {
  return isTextBatches(value) || isObjectWithBatches(value);
}

async function* members(object: LongObject): LongJson {
  let separator = "{";
  for (const [name, value] of Object.entries(object)) {
    if (value === undefined) continue;
    yield `${separator}${JSON.stringify(name)}:`;
    yield* longJson(value);
    separator = ",";
  }
  yield "}";
}

async function* joined(batches: TextBatches, brackets: "[]" | "{}"): LongJson {
  yield brackets.charAt(0);
  let separator = "";
  for await (const batch of batches) {
    if (batch.length === 0) continue;
    yield separator + batch.join(",");
    separator = ",";
  }
  yield brackets.charAt(1);
}
