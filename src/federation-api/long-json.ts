import { stringifyJson } from "../matrix/json.ts";
import type { JsonValue } from "../matrix/json.ts";
import type { PduTexts } from "../rooms/serve/serve-pdus.ts";

/** The text of an answer that is written while it is read from the database. */
export type LongJson = AsyncIterable<string>;

export function isLongJson(answer: JsonValue | LongJson): answer is LongJson {
  return typeof answer === "object" && answer !== null && Symbol.asyncIterator in answer;
}

/** The text of an object some of whose members are lists of PDUs. */
export async function* longObject(members: Readonly<Record<string, JsonValue | PduTexts>>): AsyncGenerator<string> {
  let separator = "{";
  for (const [name, value] of Object.entries(members)) {
    yield `${separator}${JSON.stringify(name)}:`;
    if (isPduTexts(value)) yield* list(value);
    else yield stringifyJson(value);
    separator = ",";
  }
  yield "}";
}

/** As version 1 of some endpoints answers: the object behind its status. */
export async function* behindStatus(object: LongJson): AsyncGenerator<string> {
  yield "[200,";
  yield* object;
  yield "]";
}

function isPduTexts(value: JsonValue | PduTexts): value is PduTexts {
  return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}

async function* list(batches: PduTexts): AsyncGenerator<string> {
  yield "[";
  let separator = "";
  for await (const batch of batches) {
    if (batch.length === 0) continue;
    yield separator + batch.join(",");
    separator = ",";
  }
  yield "]";
}
