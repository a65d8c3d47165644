import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { Pdu } from "../../src/matrix/event.ts";
import type { EventId, RoomId } from "../../src/matrix/identifiers.ts";
import { parseJson } from "../../src/matrix/json.ts";
import { rulesOf } from "../../src/matrix/room-versions.ts";
import { generateRoom } from "./generate-room.ts";
import { addEvent, newHostedRoom } from "./hosted-room.ts";
import type { HostedRoom } from "./hosted-room.ts";
import type { RoomParameters } from "./room-parameters.ts";

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, "../..");
const cache = join(root, ".cache/rooms");
const DAY_MS = 86_400_000;
const MAKERS = ["generate-room.ts", "compose-event.ts", "hosted-room.ts", "identities.ts"];

/** A digest of the code that decides what a generated room looks like: a change of it makes the kept rooms stale. */
function codeDigest(): string {
  digestOfCode ??= digestFiles();
  return digestOfCode;
}

let digestOfCode: string | undefined;

function digestFiles(): string {
  const core = join(root, "src/matrix");
  const files = readdirSync(core, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
  const paths = [...files.toSorted().map((file) => join(core, file)), ...MAKERS.map((file) => join(here, file))];
  const digest = createHash("sha256");
  for (const path of paths) digest.update(readFileSync(path));
  return digest.digest("hex").slice(0, 16);
}

function cacheFile(parameters: RoomParameters): string {
  const key = createHash("sha256").update(JSON.stringify(parameters)).digest("hex").slice(0, 24);
  return join(cache, codeDigest(), `${key}.jsonl`);
}

/** The room with these parameters, from disk where it was made before. */
export function roomFor(parameters: RoomParameters): HostedRoom {
  const file = cacheFile(parameters);
  const kept = readKept(file, parameters);
  if (kept !== undefined) return kept;
  const room = generateRoom(parameters);
  keep(file, room);
  return room;
}

/** Line by line: the room id and clock, then for each event its id, whether it is rejected, and its text. */
function keep(file: string, room: HostedRoom): void {
  const lines = [JSON.stringify({ roomId: room.roomId, clock: room.clock })];
  for (const { event, text } of room.events.values()) {
    lines.push(`${event.eventId} ${event.rejected ? "rejected" : "accepted"} ${text}`);
  }
  dropStale();
  mkdirSync(dirname(file), { recursive: true });
  // Written aside and renamed, so that a test beside this one never reads half a room.
  const aside = `${file}.${process.pid}`;
  writeFileSync(aside, `${lines.join("\n")}\n`);
  renameSync(aside, file);
}

/** Rooms of other versions of the code go after a day: until then somebody may go back to them. */
function dropStale(): void {
  mkdirSync(cache, { recursive: true });
  for (const name of readdirSync(cache)) {
    const folder = join(cache, name);
    const age = Date.now() - (statSync(folder, { throwIfNoEntry: false })?.mtimeMs ?? 0);
    if (name !== codeDigest() && age > DAY_MS) rmSync(folder, { recursive: true, force: true });
  }
}

function readKept(file: string, parameters: RoomParameters): HostedRoom | undefined {
  const rules = rulesOf(parameters.version);
  if (rules === undefined) return undefined;
  let content: string;
  try {
    content = readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
  const [head = "", ...lines] = content.trimEnd().split("\n");
  const { roomId, clock } = JSON.parse(head) as { roomId: RoomId; clock: number };
  const room = newHostedRoom(roomId, rules);
  room.clock = clock;
  for (const line of lines) {
    const [eventId = "", status = ""] = line.split(" ", 2);
    const text = line.slice(eventId.length + status.length + 2);
    const pdu = parseJson(text) as Pdu;
    addEvent(room, { event: { eventId: eventId as EventId, roomId, pdu, rejected: status === "rejected" }, text });
  }
  return room;
}
