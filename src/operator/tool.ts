import { once } from "node:events";
import type { Readable, Writable } from "node:stream";

import { CanonicalJsonError } from "../matrix/canonical-json.ts";
import { JsonSyntaxError, parseJson, stringifyJson } from "../matrix/json.ts";
import type { JsonObject } from "../matrix/json.ts";
import { ToolInputError, TOOLS } from "./tool-answers.ts";

export type ToolName = keyof typeof TOOLS;

export const TOOL_NAMES = Object.keys(TOOLS) as readonly ToolName[];

export function isToolName(name: string): name is ToolName {
  return Object.hasOwn(TOOLS, name);
}

/**
 * Opens the pure core to scripts: reads one JSON object a line and writes one JSON answer a line. A bad line answers
 * `{"error": {"code", "message"}}`, and the next is read. Ends with the input.
 *
 * Numbers are read and written without loss, as in federation.
 */
export async function runTool(name: ToolName, input: Readable, output: Writable): Promise<void> {
  for await (const line of linesOf(input)) {
    if (!output.write(`${stringifyJson(answer(name, line))}\n`)) {
      await once(output, "drain");
    }
  }
}

const UTF_8 = new TextDecoder("utf-8", { fatal: true });

function answer(name: ToolName, line: Uint8Array): JsonObject {
  let text: string;
  try {
    text = UTF_8.decode(line);
  } catch {
    return errorAnswer("NOT_UTF_8", "the line is not UTF-8");
  }
  try {
    return TOOLS[name](parseJson(text));
  } catch (error) {
    if (error instanceof ToolInputError || error instanceof JsonSyntaxError || error instanceof CanonicalJsonError) {
      return errorAnswer(error.code, error.message);
    }
    throw error;
  }
}

function errorAnswer(code: string, message: string): JsonObject {
  return { error: { code, message } };
}

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;

/**
 * The lines without their ends. Split as bytes: `node:readline` would also split at U+2028, which JSON allows inside a
 * string.
 */
async function* linesOf(input: Readable): AsyncGenerator<Uint8Array> {
  let parts: Buffer[] = [];
  for await (const chunk of input) {
    let rest: Buffer = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
    for (let end = rest.indexOf(LINE_FEED); end >= 0; end = rest.indexOf(LINE_FEED)) {
      parts.push(rest.subarray(0, end));
      yield withoutCarriageReturn(Buffer.concat(parts));
      parts = [];
      rest = rest.subarray(end + 1);
    }
    if (rest.length > 0) {
      parts.push(rest);
    }
  }
  if (parts.length > 0) {
    yield withoutCarriageReturn(Buffer.concat(parts));
  }
}

function withoutCarriageReturn(line: Buffer): Buffer {
  return line.at(-1) === CARRIAGE_RETURN ? line.subarray(0, -1) : line;
}
