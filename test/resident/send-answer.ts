import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { isJsonObject, parseJson, stringifyJson } from "../../src/matrix/json.ts";
import type { Answer } from "./answer.ts";
import { endOf, lieNamed, troubleOf } from "./trouble.ts";
import type { Trouble } from "./trouble.ts";

/** Writes an answer, as slowly, as incompletely or as falsely as the troubles ask. */
export async function sendAnswer(
  response: ServerResponse,
  answer: Answer,
  troubles: readonly Trouble[],
): Promise<void> {
  response.writeHead(answer.status, { "content-type": "application/json" });
  const pieces = "pieces" in answer ? toldPieces(answer, troubles) : [bodyText(answer, troubles)];
  if (troubleOf(troubles, "half-body") !== undefined) {
    const whole = [...pieces].join("");
    response.write(whole.slice(0, whole.length / 2), () => response.destroy());
    return;
  }
  const change = troubleOf(troubles, "rewrite")?.change;
  if (change !== undefined) {
    response.end(change([...pieces].join("")));
    return;
  }
  const slow = troubleOf(troubles, "slow");
  const pace = { bytesPerSecond: slow?.bytesPerSecond };
  if (slow !== undefined) void endOf(slow).then(() => (pace.bytesPerSecond = undefined));
  for (const piece of pieces) {
    if (response.destroyed) return;
    await writeAtPace(response, piece, pace);
  }
  response.end();
}

/** A lie about the whole of a long answer needs the whole of it. */
function toldPieces(answer: Extract<Answer, { pieces: unknown }>, troubles: readonly Trouble[]): Iterable<string> {
  if (lieNamed(troubles, "answer") === undefined) return answer.pieces;
  return [bodyText({ status: answer.status, body: parseJson([...answer.pieces].join("")) }, troubles)];
}

function bodyText(answer: Extract<Answer, { body: unknown }>, troubles: readonly Trouble[]): string {
  const changes = lieNamed(troubles, "answer")?.changes;
  if (changes === undefined || !isJsonObject(answer.body)) return stringifyJson(answer.body);
  return stringifyJson({ ...answer.body, ...changes });
}

async function writePiece(response: ServerResponse, piece: string): Promise<void> {
  if (response.write(piece)) return;
  // Whichever comes first takes the other's listener away: a long answer waits many times.
  const over = new AbortController();
  const { signal } = over;
  await Promise.race([once(response, "drain", { signal }), once(response, "close", { signal })]).finally(() => {
    over.abort();
  });
}

const TICKS_PER_SECOND = 20;

interface Pace {
  /** Undefined: as fast as can be. It may change meanwhile. */
  bytesPerSecond: number | undefined;
}

async function writeAtPace(response: ServerResponse, piece: string, pace: Pace): Promise<void> {
  for (let at = 0; at < piece.length && !response.destroyed;) {
    const { bytesPerSecond } = pace;
    const step = Math.max(1, Math.floor((bytesPerSecond ?? Number.POSITIVE_INFINITY) / TICKS_PER_SECOND));
    await writePiece(response, piece.slice(at, at + step));
    at += step;
    if (bytesPerSecond !== undefined) await new Promise((resolve) => setTimeout(resolve, 1000 / TICKS_PER_SECOND));
  }
}
