import type { Command } from "commander";
import { userInfo } from "node:os";
import { describeChanges } from "../operator/describe-changes.ts";
import { describeMisdirected, describePurge } from "../operator/describe-room.ts";
import { describeResync, describeSummary } from "../operator/describe-resync.ts";
import { createOperatorClient, type OperatorClient } from "../operator/operator-client.ts";
import type { ChangesReport } from "../operator/read-changes.ts";
import type { MisdirectedReport } from "../operator/read-misdirected.ts";
import type { ResyncReport, ResyncSummary } from "../operator/read-resyncs.ts";
import type { NewAccount } from "../operator/make-account.ts";
import type { Outcome } from "../operator/steer-resync.ts";
import { checkDataDir } from "./check-surroundings.ts";
import type { Config, Environment } from "./config.ts";
import { loadConfig } from "./config.ts";
import type { RoomPurged } from "../rooms/join/purge-room.ts";
import { findOperatorToken } from "./operator-token.ts";
import { readRunning } from "./running-file.ts";

/** What the commands use of the world outside. */
export interface CommandLine {
  readonly env: Environment;
  readonly write: (text: string) => void;
  readonly now: () => number;
}

/** The client listener's address as a URL that this machine can ask. */
function urlOf({ host, port }: Config["clientListen"]): string {
  const reachable = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  return `http://${reachable.includes(":") ? `[${reachable}]` : reachable}:${port}`;
}

async function connect(line: CommandLine): Promise<{ readonly client: OperatorClient; readonly config: Config }> {
  const config = loadConfig(line.env);
  await checkDataDir(config, "read");
  const running = await readRunning(config.dataDir);
  const url = running?.clientUrl ?? urlOf(config.clientListen);
  return { client: createOperatorClient(url, await findOperatorToken(config)), config };
}

function pathOf(roomId: string, action = ""): string {
  return `/resyncs/${encodeURIComponent(roomId)}${action}`;
}

function whoAsks(): string {
  return `command line, ${userInfo().username}`;
}

function outcomeText(what: string, { workflowTold }: Outcome): string {
  return workflowTold ? `${what}\n` : `${what} (stored; Temporal could not be told, the reconciler will see to it)\n`;
}

function collect(value: string, previous: readonly string[]): readonly string[] {
  return [...previous, value];
}

function addReadCommands(program: Command, line: CommandLine): void {
  program
    .command("rooms")
    .description("list the rooms whose state is partial")
    .option("--json", "print JSON")
    .action(async (options: { json?: boolean }) => {
      const { client } = await connect(line);
      const { resyncs } = (await client.get("/resyncs")) as { resyncs: readonly ResyncSummary[] };
      const none = "every room's state is complete\n";
      const text = resyncs.length === 0 ? none : resyncs.map(describeSummary).join("");
      line.write(options.json ? `${JSON.stringify(resyncs, undefined, 2)}\n` : text);
    });
  program
    .command("show")
    .description("show a room's resync: where it is, what it waits for, which server failed and why")
    .argument("<room>", "room id")
    .option("--json", "print JSON")
    .action(async (room: string, options: { json?: boolean }) => {
      const { client } = await connect(line);
      const report = (await client.get(pathOf(room))) as ResyncReport;
      const misdirected = (await client.get(pathOf(room, "/misdirected"))) as MisdirectedReport;
      const json = { ...report, misdirected: misdirected.servers };
      const text = describeResync(report, line.now()) + describeMisdirected(misdirected);
      line.write(options.json ? `${JSON.stringify(json, undefined, 2)}\n` : text);
    });
  program
    .command("changes")
    .description("list the events whose acceptance a room's resync has changed: what, when, why, by which auth rule")
    .argument("<room>", "room id")
    .option("--json", "print JSON")
    .action(async (room: string, options: { json?: boolean }) => {
      const { client } = await connect(line);
      const report = await allChanges(client, room);
      line.write(options.json ? `${JSON.stringify(report, undefined, 2)}\n` : describeChanges(report));
    });
}

/** Page by page: there may be thousands. */
async function allChanges(client: OperatorClient, room: string): Promise<ChangesReport> {
  const read = async (after: string): Promise<ChangesReport> =>
    (await client.get(pathOf(room, `/changes?after=${after}`))) as ChangesReport;
  let page = await read("0");
  const changes = [...page.changes];
  while (page.next !== undefined) {
    page = await read(page.next);
    changes.push(...page.changes);
  }
  return { roomId: page.roomId, changes };
}

function addSteerCommands(program: Command, line: CommandLine): void {
  program
    .command("retry")
    .description("set a room's resync going: a waiting one asks again now, a cancelled one starts again")
    .argument("<room>", "room id")
    .option("--via <server>", "ask this server first")
    .action(async (room: string, { via }: { via?: string }) => {
      const { client } = await connect(line);
      const outcome = await client.post(pathOf(room, "/retry"), { by: whoAsks(), ...(via !== undefined && { via }) });
      line.write(outcomeText(`retrying ${room}`, outcome as Outcome));
    });
  program
    .command("cancel")
    .description("stop a room's resync until it is retried; the room stays usable in its partial state")
    .argument("<room>", "room id")
    .option("--why <reason>", "noted for whoever looks at it later", "")
    .action(async (room: string, { why }: { why: string }) => {
      const { client } = await connect(line);
      const outcome = await client.post(pathOf(room, "/cancel"), { by: whoAsks(), why });
      line.write(outcomeText(`cancelled the resync of ${room}`, outcome as Outcome));
    });
  program
    .command("drop")
    .description("reject an event before which nobody can give the state, so that the resync goes on without it")
    .argument("<room>", "room id")
    .argument("<event>", "event id, as `show` names it")
    .option("--why <reason>", "noted for whoever looks at it later", "")
    .action(async (room: string, eventId: string, { why }: { why: string }) => {
      const { client } = await connect(line);
      const outcome = await client.post(pathOf(room, "/drop"), { by: whoAsks(), why, eventId });
      line.write(outcomeText(`dropped ${eventId} of ${room}`, outcome as Outcome));
    });
  program
    .command("leave")
    .description("give a room up: all of our users leave it")
    .argument("<room>", "room id")
    .option("--why <reason>", "the reason that the room is told", "")
    .action(async (room: string, { why }: { why: string }) => {
      const { client } = await connect(line);
      const { left } = (await client.post(pathOf(room, "/leave"), { by: whoAsks(), why })) as { left: string[] };
      line.write(`left ${room}: ${left.length === 0 ? "none of our users was in it" : left.join(", ")}\n`);
    });
  program
    .command("purge")
    .description("give a room up and forget it: all of our users leave it, and what is held of it is deleted")
    .argument("<room>", "room id")
    .option("--why <reason>", "the reason that the room is told", "")
    .action(async (room: string, { why }: { why: string }) => {
      const { client } = await connect(line);
      const purged = (await client.post(`/rooms/${encodeURIComponent(room)}/purge`, {
        by: whoAsks(),
        why,
      })) as RoomPurged;
      line.write(describePurge(room, purged));
    });
}

function addFirstStepCommands(program: Command, line: CommandLine): void {
  program
    .command("user")
    .description("accounts")
    .command("add")
    .description("make an account, whatever the setting for registration")
    .argument("<name>", "the part of the user id between @ and the colon")
    .option("--password <password>", "made up if not given")
    .action(async (name: string, { password }: { password?: string }) => {
      const { client } = await connect(line);
      const body = { name, ...(password !== undefined && { password }) };
      const account = (await client.post("/users", body)) as NewAccount;
      const { userId, password: chosen, accessToken } = account;
      line.write(`user          ${userId}\npassword      ${chosen}\naccess token  ${accessToken}\n`);
    });
  program
    .command("join")
    .description("join a room as one of our users")
    .argument("<room>", "room id or alias")
    .option("--via <server>", "a server to join through; may be given several times", collect, [])
    .requiredOption("--as <user>", "user id, or the name alone")
    .action(async (room: string, { via, as }: { via: readonly string[]; as: string }) => {
      const { client, config } = await connect(line);
      const userId = as.startsWith("@") ? as : `@${as}:${config.serverName}`;
      const began = line.now();
      const joined = (await client.post("/joins", { room, via, userId })) as { roomId: string; partial: boolean };
      const took = ((line.now() - began) / 1000).toFixed(1);
      const state = joined.partial
        ? `its state is partial and being completed: \`fastjoin show '${joined.roomId}'\``
        : "its state is complete";
      line.write(`${userId} joined ${joined.roomId} in ${took} s; ${state}\n`);
    });
}

/** The operator's commands, which work through a running sidecar's API. */
export function addOperatorCommands(program: Command, line: CommandLine): void {
  addReadCommands(program, line);
  addSteerCommands(program, line);
  addFirstStepCommands(program, line);
}
