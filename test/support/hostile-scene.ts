import { Writable } from "node:stream";
import pino from "pino";
import { expect } from "vitest";
import { fetchOutcome, type FetchOutcome } from "../../activities/fetch-outcome.ts";
import type { EventId, ServerName } from "../../src/matrix/identifiers.ts";
import type { RoomsContext } from "../../src/rooms/context.ts";
import { nextResyncStep } from "../../src/rooms/resync/resync-next-step.ts";
import type { Database } from "../../src/storage/database.ts";
import type { HostedRoom } from "../resident/hosted-room.ts";
import type { Trouble } from "../resident/trouble.ts";
import { join, type EnteredRoom } from "./race-scene.ts";
import type { Scene } from "./scene.ts";

/** What a process of the same sidecar does, with its log in the open. */
export interface Watched {
  readonly ctx: RoomsContext;
  /** Line by line, as JSON. */
  readonly log: readonly string[];
}

export function watched({ sidecar }: Scene): Watched {
  const log: string[] = [];
  const sink = new Writable({
    write(line, _encoding, done) {
      log.push(String(line));
      done();
    },
  });
  return { ctx: { ...sidecar.ctx, logger: pino({ level: "info" }, sink) }, log };
}

/** What is known of servers, which asking one changes whatever it answers. */
const OF_SERVERS: ReadonlySet<string> = new Set(["destinations", "server_keys"]);

/** A digest of the rows of every table. */
export async function digestOf({ pool }: Database): Promise<Readonly<Record<string, string>>> {
  const { rows } = await pool.query<{ name: string }>(
    `SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`,
  );
  const digests: Record<string, string> = {};
  for (const { name } of rows) {
    if (OF_SERVERS.has(name)) continue;
    const { rows: digest } = await pool.query<{ digest: string }>(
      `SELECT count(*) || ' ' || coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))), '') AS digest
       FROM ${name} t`,
    );
    digests[name] = digest[0]?.digest ?? "";
  }
  return digests;
}

function reasonsIn(log: readonly string[], message: string): readonly unknown[] {
  const lines = log.map((line) => JSON.parse(line) as LogLine).filter(({ msg }) => msg === message);
  return lines.map(({ err, detail }) => err?.reason ?? detail);
}

interface LogLine {
  readonly msg: string;
  readonly detail?: string;
  readonly err?: { readonly reason: string };
}

/** The join is refused with this cause, in the answer and in the log, and the database is as it was. */
export async function expectJoinRefused(
  scene: Scene,
  room: HostedRoom,
  troubles: readonly Trouble[],
  cause: string | RegExp,
): Promise<void> {
  const { ctx, log } = watched(scene);
  for (const trouble of troubles) scene.resident.trouble(trouble);
  const before = await digestOf(scene.database);
  const refused = await join(scene, ctx, room).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(refused).toMatchObject({ status: 502, errcode: "M_UNKNOWN", message: expect.stringMatching(cause) });
  expect(refused).toMatchObject({ message: expect.stringContaining(scene.resident.serverName) });
  expect(reasonsIn(log, "a join attempt failed")).toContainEqual(expect.stringMatching(cause));
  expect(await digestOf(scene.database)).toEqual(before);
}

interface Told {
  readonly outcome: FetchOutcome;
  readonly log: readonly string[];
}

/** Asks for the state that the room's resync lacks, once, as the workflow does. */
export async function askForState(
  scene: Scene,
  { target }: Pick<EnteredRoom, "target">,
  server: ServerName = scene.resident.serverName,
): Promise<Told> {
  const { ctx, log } = watched(scene);
  const step = await nextResyncStep(ctx, target);
  const [eventId] = step.kind === "fetch" ? step.eventIds : [];
  if (eventId === undefined) throw new Error(`the resync's next step is to ${step.kind}`);
  return { outcome: await fetchOutcome(ctx, { ...target, eventId: eventId as EventId, server }), log };
}

/** The workflow is told this cause and detail, the log has them too, and nothing but outliers has come of it. */
export async function expectStateRefused(
  scene: Scene,
  entered: EnteredRoom,
  expected: { readonly cause: string; readonly detail: string | RegExp },
): Promise<void> {
  const before = await digestOf(scene.database);
  const { outcome, log } = await askForState(scene, entered);
  const { cause, detail } = expected;
  expect(outcome).toMatchObject({ kind: "failed", cause, detail: expect.stringMatching(detail) });
  expect(reasonsIn(log, "a server could not help the resync")).toEqual([expect.stringMatching(detail)]);
  const { events: _outliers, ...rest } = before;
  expect(await digestOf(scene.database)).toMatchObject(rest);
  scene.resident.clearTrouble();
}
