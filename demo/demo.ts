import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { RoomId, UserId } from "../src/matrix/identifiers.ts";
import type { RoomSummary } from "../test/resident/admin.ts";
import { spawnResident } from "../test/resident/spawn-resident.ts";
import type { ResidentProcess } from "../test/resident/spawn-resident.ts";
import { registerClient } from "./chat-client.ts";
import type { ChatClient } from "./chat-client.ts";
import { compareStates } from "./compare-states.ts";
import { createNarrator } from "./narrator.ts";
import { lastLines, startSidecar } from "./sidecar.ts";
import type { Sidecar } from "./sidecar.ts";
import { reportOn, watchResync } from "./watch-resync.ts";
import type { Resync } from "./watch-resync.ts";

const MEMBERS = 5000;
const SERVERS = 50;
/** So slow that the whole state takes some ten seconds: otherwise there would be nothing to watch. */
const BYTES_PER_SECOND = 500_000;

const { values: flags } = parseArgs({
  options: { keep: { type: "boolean", default: false }, "from-source": { type: "boolean", default: false } },
});
const narrator = createNarrator(process.stdout);

/** Who is there, once all have come up. */
interface Cast {
  readonly resident: ResidentProcess;
  readonly sidecar: Sidecar;
  readonly room: RoomSummary;
  readonly via: string;
}

/** What must be ended again, whatever happens. */
interface Stage {
  readonly dataDir: string;
  readonly open: { stop(): Promise<void> }[];
  logFile: string | undefined;
  cast?: Cast;
  interrupted: boolean;
  /** The story has been told to its end, and well. */
  done: boolean;
}

function introduce(): void {
  narrator.heading("Fastjoin: joining a huge chat room at once");
  narrator.say(
    "Matrix is an open network for chat. As with e-mail, everyone has an account on a server of their choice; a chat " +
      "room lives on all the servers that have members in it. So a server that joins a room must learn the room's " +
      "state: who is in it, who was thrown out, who may do what. Every single entry is signed and has to be fetched and " +
      "checked. In a big room that takes minutes, and all the while the user looks at a spinner.",
  );
  narrator.say("");
  narrator.say(
    "Fastjoin joins with the handful of entries that matter at once, and fetches the rest while people already talk. " +
      "That work is a durable workflow (Temporal): whatever crashes meanwhile, it goes on where it was.",
  );
}

async function raiseCurtain(stage: Stage): Promise<Cast> {
  narrator.heading("1. Everything starts, on this machine only");
  const from = Date.now();
  // One of the members, on one of the servers, is the resident's own.
  const parameters = {
    members: MEMBERS - 1,
    servers: SERVERS - 1,
    bans: 20,
    kicks: 20,
    leaves: 60,
    messages: 50,
    forks: 5,
  };
  const resident = await spawnResident({}, [parameters]);
  stage.open.push(resident);
  const [roomId] = resident.rooms;
  const [via] = resident.serverNames;
  if (roomId === undefined || via === undefined) throw new Error("the resident hosts no room");
  const room = await resident.call("room", roomId);
  narrator.note(`Another chat server, ${via}, where the room is:`);
  narrator.note(
    `  ${room.joinedMembers} members on ${room.joinedServers} servers, ${room.stateEvents} entries of state`,
  );
  const sidecar = await startSidecar({ dataDir: stage.dataDir, notary: via, fromSource: flags["from-source"] });
  stage.open.push(sidecar);
  stage.logFile = sidecar.logFile;
  const { worker, serve } = await sidecar.processes();
  narrator.note(`Fastjoin, ${sidecar.serverName}: PostgreSQL, Temporal, HTTP (process ${serve}), worker (${worker})`);
  narrator.note(`Temporal's web page: ${sidecar.temporalUi}`);
  narrator.note(`All of it was up after ${since(from)}.`);
  await resident.call("trouble", { kind: "slow", at: "state", bytesPerSecond: BYTES_PER_SECOND });
  await resident.call("trouble", { kind: "slow", at: "state_ids", delayMs: 1000 });
  await resident.call("trouble", { kind: "slow", at: "event", delayMs: 500 });
  narrator.say("");
  narrator.say(
    `The other server is told to be slow when it hands out the whole state (${BYTES_PER_SECOND / 1000} kB a second), so ` +
      "that there is something to watch. It does not slow down the join.",
  );
  return { resident, sidecar, room, via };
}

interface Joined {
  readonly seconds: number;
  readonly at: number;
}

async function joinRoom(cast: Cast, alice: ChatClient): Promise<Joined> {
  narrator.heading("2. Alice joins the room");
  const from = performance.now();
  await alice.join(cast.room.roomId, cast.via);
  const seconds = (performance.now() - from) / 1000;
  narrator.good(`${alice.userId} is in the room after ${seconds.toFixed(2)} seconds.`);
  return { seconds, at: Date.now() };
}

/**
 * While the state is partial: a message each way, and proof that it was partial before and after.
 *
 * @returns the link to the workflow
 */
async function talk(cast: Cast, alice: ChatClient): Promise<string | undefined> {
  narrator.heading("3. She talks, and is talked to, although most of the room is still unknown");
  const roomId: RoomId = cast.room.roomId;
  const before = await reportOn({ sidecar: cast.sidecar, roomId });
  if (before.state !== "partial") throw new Error("the room should still be partial just after the join");
  const own = await alice.say(roomId, "Hello! I have just arrived.");
  const sentAt = performance.now();
  await untilResidentHas(cast, own as `$${string}`);
  narrator.good(`Alice's message has reached the other server, ${milliseconds(sentAt)} after it was sent.`);
  const founder: UserId = cast.room.founder;
  const answeredAt = performance.now();
  const answer = await cast.resident.call("sendMessage", roomId, founder, "Welcome, Alice!");
  await alice.waitFor(roomId, answer.eventId, 15_000);
  narrator.good(`The answer of ${founder} is on her screen, ${milliseconds(answeredAt)} after it was sent.`);
  const after = await reportOn({ sidecar: cast.sidecar, roomId });
  if (after.state !== "partial") throw new Error("the room became complete too early: there was nothing to show");
  narrator.note("All of that happened on partial state: what was accepted early will be checked again.");
  return after.link;
}

async function untilResidentHas(cast: Cast, eventId: `$${string}`): Promise<void> {
  const until = Date.now() + 15_000;
  while (Date.now() < until) {
    if (await cast.resident.call("has", cast.room.roomId, eventId)) return;
    await delay(20);
  }
  throw new Error(`${eventId} did not reach the other server`);
}

async function repair(cast: Cast, joined: Joined, link: string | undefined): Promise<Resync> {
  narrator.heading("4. Behind her back the rest of the room arrives");
  narrator.note(`The workflow that does it, in Temporal's web page: ${link ?? cast.sidecar.temporalUi}`);
  const { roomId, eventsToKnow } = cast.room;
  const { sidecar } = cast;
  const resync = await watchResync({ narrator, sidecar, roomId, joinedAt: joined.at, eventsToKnow });
  narrator.good(`The room is complete, ${resync.seconds.toFixed(1)} s after Alice joined it.`);
  return resync;
}

async function check(cast: Cast, alice: ChatClient): Promise<boolean> {
  narrator.heading("5. Is it the same room?");
  const { roomId } = cast.room;
  const ours = await alice.fullState(roomId);
  const theirs = new Map(await cast.resident.call("fullState", roomId));
  const { compared, different } = compareStates(ours, theirs);
  if (different.length === 0) {
    narrator.good(`All ${compared} entries of state are the same events on both servers.`);
    return true;
  }
  narrator.bad(`${different.length} of ${compared} entries differ:`);
  for (const key of different.slice(0, 10)) {
    narrator.note(`${key.replace("\u001f", " / ")}: ours ${ours.get(key) ?? "-"}, theirs ${theirs.get(key) ?? "-"}`);
  }
  return false;
}

function conclude(joined: Joined, resync: Resync, same: boolean): boolean {
  narrator.heading("What you have seen");
  narrator.note(`Time until Alice could talk:       ${joined.seconds.toFixed(2)} s`);
  narrator.note(`Time until everything was known:   ${resync.seconds.toFixed(1)} s more, in the background`);
  const recovery = resync.recoverySeconds;
  narrator.note(
    `Worker killed half-way:            ${recovery === undefined ? "no" : `the work went on ${recovery.toFixed(1)} s later`}`,
  );
  narrator.note(`State equal to the other server's: ${same ? "yes, in every entry" : "NO"}`);
  if (recovery === undefined) narrator.bad("The worker was never killed, so this run has not shown what it is for.");
  return same && recovery !== undefined;
}

async function play(stage: Stage): Promise<boolean> {
  introduce();
  const cast = await raiseCurtain(stage);
  const alice = await registerClient(cast.sidecar.clientUrl, "alice");
  const joined = await joinRoom(cast, alice);
  const link = await talk(cast, alice);
  const resync = await repair(cast, joined, link);
  const same = await check(cast, alice);
  stage.cast = cast;
  return conclude(joined, resync, same);
}

async function linger({ cast }: Stage): Promise<void> {
  if (cast === undefined) return;
  const { sidecar, room } = cast;
  narrator.heading("Everything keeps running until Ctrl-C");
  narrator.note(`Temporal's web page:      ${sidecar.temporalUi}`);
  narrator.note(`Client-server API:        ${sidecar.clientUrl} (registration is open)`);
  narrator.note(`The room:                 ${room.roomId}`);
  narrator.note(`Data and log:             ${sidecar.dataDir}`);
  narrator.note(`The operator's commands:  FASTJOIN_DATA_DIR=${sidecar.dataDir} npx fastjoin rooms`);
  await new Promise(() => undefined);
}

function since(from: number): string {
  return `${((Date.now() - from) / 1000).toFixed(1)} s`;
}

function milliseconds(from: number): string {
  return `${Math.round(performance.now() - from)} ms`;
}

async function lowerCurtain(stage: Stage): Promise<void> {
  for (const one of stage.open.splice(0).toReversed()) await one.stop();
}

async function interrupt(stage: Stage): Promise<void> {
  if (stage.interrupted) return;
  stage.interrupted = true;
  narrator.endProgress();
  narrator.note("Stopping everything that was started.");
  await lowerCurtain(stage);
  rmSync(stage.dataDir, { recursive: true, force: true });
  process.exit(stage.done ? 0 : 130);
}

async function main(): Promise<number> {
  const dataDir = mkdtempSync(join(tmpdir(), "fastjoin-demo-"));
  // Where the demo runs as root PostgreSQL does not, and must be able to pass through.
  chmodSync(dataDir, 0o711);
  const stage: Stage = { dataDir, open: [], logFile: undefined, interrupted: false, done: false };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => void interrupt(stage));
  }
  try {
    stage.done = await play(stage);
    if (flags.keep && stage.done) await linger(stage);
  } catch (error) {
    // What fails because everything is being stopped is no news.
    if (stage.interrupted) await new Promise(() => undefined);
    narrator.endProgress();
    narrator.bad(error instanceof Error ? error.message : String(error));
    if (stage.logFile !== undefined) narrator.note(`The end of Fastjoin's log:\n${lastLines(stage.logFile, 15)}`);
  }
  await lowerCurtain(stage);
  if (!stage.done) {
    narrator.note(`Data and log are kept in ${dataDir}`);
    return 1;
  }
  rmSync(dataDir, { recursive: true, force: true });
  return 0;
}

process.exitCode = await main();
