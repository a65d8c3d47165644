import { once } from "node:events";
import { chown, open, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { connect, type TLSSocket } from "node:tls";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import type { HostedRoom } from "../resident/hosted-room.ts";
import { startResident, type Resident } from "../resident/resident.ts";
import { openGrounds, type Grounds } from "../support/failpoints/grounds.ts";
import type { Half } from "../support/failpoints/cast.ts";
import { openLane, type Lane } from "../support/failpoints/lane.ts";
import { mayMountDisks, mountSmallDisk } from "../support/small-disk.ts";
import {
  aftermath,
  enter,
  insist,
  newRoom,
  theySay,
  until,
  untilWhole,
  weSay,
  type Stage,
} from "./kill-matrix/stage.ts";

/** Seconds that something is away: few, or as many as an outage really takes (`OUTAGE_SECONDS=600`). */
const AWAY_MS = Number(process.env["OUTAGE_SECONDS"] ?? 3) * 1000;

const MINUTE = 60_000;

let grounds: Grounds;
let resident: Resident;
let lane: Lane;
let stages = 0;

beforeAll(async () => {
  resident = await startResident();
  // So few connections that they can be used up; nothing makes room in the tables by itself.
  grounds = await openGrounds({ postgres: { max_connections: "60", autovacuum: "off" } });
  lane = await openLane(grounds, resident, { name: "outages", halves: ["serve", "worker", "other worker"] });
});
afterAll(async () => {
  await lane.close();
  await grounds.close();
  await resident.close();
});

async function newStage(): Promise<Stage> {
  stages += 1;
  const alice = await lane.user(`alice-${stages}`);
  return { lane, resident, alice, label: `outage ${stages}`, pushedTo: () => [] };
}

interface PartialRoom {
  readonly room: HostedRoom;
  /** Lets the resync go on. */
  readonly letGo: () => void;
}

async function partialRoom(stage: Stage): Promise<PartialRoom> {
  const room = newRoom(stage);
  const letGo = resident.trouble({ kind: "hold", at: "state_ids", forServer: lane.serverName });
  onTestFinished(letGo);
  await enter(stage, room);
  return { room, letGo };
}

/** Both sides say something, and each is heard in the end. */
async function talk(stage: Stage, room: HostedRoom): Promise<void> {
  await Promise.all([weSay(stage, room, "ours, meanwhile"), theySay(stage, room, "theirs, meanwhile")]);
}

const ENDS_WELL = {
  differences: [],
  said: ["ours, meanwhile", "theirs, meanwhile"],
  delivered: ["ours, meanwhile: 1"],
  left: [],
  story: "completed",
};

/** A disk that is small and full can only be had where we may mount one; elsewhere its test counts as skipped. */
const smallDisks = await mayMountDisks();

describe("PostgreSQL", () => {
  it("may be away for a while in the middle of a resync and of messages", async () => {
    const stage = await newStage();
    const { room, letGo } = await partialRoom(stage);
    await grounds.kill("postgres");
    letGo();
    const talked = talk(stage, room);
    await delay(AWAY_MS);
    await grounds.start("postgres");
    await talked;
    expect(await aftermath(stage, room)).toEqual(ENDS_WELL);
    expect(lane.unasked).toEqual([]);
  });

  it.runIf(smallDisks)(
    "may have no room left: what can't be stored is refused, and all goes on when there is room",
    async () => {
      const stage = await newStage();
      const { room, letGo } = await partialRoom(stage);
      const makeRoom = await leaveNoRoom(room);
      const speak = async (n: number): Promise<unknown> =>
        await stage.alice.put(`rooms/${encodeURIComponent(room.roomId)}/send/m.room.message/${n}`, { body: "." });
      const speakUntilRefused = async (): Promise<void> => {
        for (let n = 0; n < 500; n += 1) await speak(n);
      };
      await expect(speakUntilRefused()).rejects.toThrow(/: 50\d /);
      letGo();
      const talked = talk(stage, room);
      await delay(AWAY_MS);
      await makeRoom();
      await talked;
      const after = await aftermath(stage, room);
      const delivered = after.delivered.filter((one) => one.startsWith("ours,"));
      expect({ ...after, delivered }).toEqual(ENDS_WELL);
      expect(lane.unasked).toEqual([]);
    },
  );

  it("may have no connection left", async () => {
    const stage = await newStage();
    const { room, letGo } = await partialRoom(stage);
    const giveBack = await useUpConnections();
    letGo();
    const talked = talk(stage, room);
    await delay(AWAY_MS);
    await giveBack();
    await talked;
    expect(await aftermath(stage, room)).toEqual(ENDS_WELL);
    expect(lane.unasked).toEqual([]);
  });
});

/**
 * Moves the table of events to a disk of its own, which is small and full.
 *
 * @returns what makes room on it
 */
async function leaveNoRoom({ roomId }: HostedRoom): Promise<() => Promise<void>> {
  const { pool } = lane.database;
  const disk = await mountSmallDisk(64);
  onTestFinished(async () => {
    await pool.query("ALTER TABLE events SET TABLESPACE pg_default");
    await pool.query("DROP TABLESPACE small");
    await disk.close();
  });
  await chown(disk.path, (await stat(`/proc/${grounds.postgresPid}`)).uid, -1);
  await pool.query(`CREATE TABLESPACE small LOCATION '${disk.path}'`);
  await pool.query("ALTER TABLE events SET TABLESPACE small");
  const filler = join(disk.path, "filler");
  await fill(filler);
  // Until the table's last page is full too.
  const row = `INSERT INTO events (event_id, room_id, type, sender, depth, origin_server_ts, prev_event_ids,
                                   auth_event_ids, pdu, outlier)
               VALUES ($1, $2, 'filler', '@filler:localhost', 1, 1, '{}', '{}', '', true)`;
  const insertUntilFull = async (): Promise<void> => {
    for (let n = 0; ; n += 1) await pool.query(row, [`$filler${n}`, roomId]);
  };
  await expect(insertUntilFull()).rejects.toThrow("No space left on device");
  return async () => {
    await rm(filler);
    await pool.query("DELETE FROM events WHERE type = 'filler'");
  };
}

async function fill(path: string): Promise<void> {
  const file = await open(path, "w");
  try {
    for (let size = 64 * 1024; size >= 1024;) {
      const { bytesWritten } = await file.write(Buffer.alloc(size)).catch(() => ({ bytesWritten: 0 }));
      if (bytesWritten === 0) size /= 2;
    }
  } finally {
    await file.close();
  }
}

/** Takes every connection there is, the product's too. @returns what gives them back */
async function useUpConnections(): Promise<() => Promise<void>> {
  const taken: pg.Client[] = [];
  const take = async (): Promise<boolean> => {
    const client = new pg.Client({ connectionString: lane.database.url, application_name: "a hog" });
    client.on("error", () => undefined);
    try {
      await client.connect();
      taken.push(client);
      return true;
    } catch {
      return false;
    }
  };
  for (let rounds = 0; rounds < 5; rounds += 1) {
    while (await take());
    await taken[0]?.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'fastjoin%'",
    );
  }
  while (await take());
  return async () => {
    await Promise.all(taken.map(async (client) => await client.end()));
  };
}

describe("Temporal", () => {
  it("may be away while a room is joined, and afterwards", async () => {
    const stage = await newStage();
    await grounds.kill("temporal");
    const { room, letGo } = await partialRoom(stage);
    letGo();
    await talk(stage, room);
    await delay(AWAY_MS);
    await grounds.start("temporal");
    expect(await aftermath(stage, room)).toEqual(ENDS_WELL);
    expect(lane.unasked).toEqual([]);
  });
});

/** What streams tell of a room's end: one row, and one for each event. */
async function toldTwice(room: HostedRoom): Promise<readonly unknown[]> {
  const rooms = await lane.database.pool.query(
    "SELECT room_id FROM un_partial_stated_room_stream WHERE room_id = $1 OFFSET 1",
    [room.roomId],
  );
  const events = await lane.database.pool.query(
    `SELECT event_id FROM un_partial_stated_event_stream JOIN events USING (event_id)
     WHERE room_id = $1 GROUP BY event_id HAVING count(*) > 1`,
    [room.roomId],
  );
  return [...rooms.rows, ...events.rows];
}

describe("a worker that is stopped past its heartbeat, and goes on later", () => {
  it.each(["before: report repaired events", "after: confirm a state", "after: finish a resync"] as const)(
    "finds its turn taken: at %s",
    async (point) => {
      const stage = await newStage();
      const { room, letGo } = await partialRoom(stage);
      const armed = await lane.arm(point, "hold");
      letGo();
      const half = await armed.struck;
      const pid = lane.pid(half);
      lane.signal(half, "SIGSTOP");
      onTestFinished(() => lane.signal(half, "SIGCONT"));
      await untilWhole(stage, room);
      await talk(stage, room);
      lane.signal(half, "SIGCONT");
      await armed.disarm();
      expect(await aftermath(stage, room)).toEqual(ENDS_WELL);
      expect(await toldTwice(room)).toEqual([]);
      // It has outlived what it missed, and is of use again.
      await lane.kill(half === "worker" ? "other worker" : "worker");
      const next = await newStage();
      const again = await partialRoom(next);
      again.letGo();
      await untilWhole(next, again.room);
      expect(lane.pid(half)).toBe(pid);
      expect(lane.unasked).toEqual([]);
    },
  );
});

describe("a clock that is off", () => {
  it.each([
    ["an hour ahead", 60 * MINUTE, undefined],
    ["an hour behind", -60 * MINUTE, undefined],
    ["an hour ahead on one worker", 60 * MINUTE, "worker"],
    ["an hour behind on one worker", -60 * MINUTE, "worker"],
  ] as readonly (readonly [string, number, Half | undefined])[])("hinders nothing: %s", async (_, aheadMs, half) => {
    const stage = await newStage();
    await lane.shiftClock(aheadMs, half);
    try {
      const { room, letGo } = await partialRoom(stage);
      await talk(stage, room);
      letGo();
      expect(await aftermath(stage, room)).toEqual(ENDS_WELL);
    } finally {
      await lane.shiftClock(0, half);
    }
    expect(lane.unasked).toEqual([]);
  });
});

/** The first half of a request of another server. */
async function sendHalf(): Promise<TLSSocket> {
  const port = Number(lane.settings.env["FASTJOIN_FEDERATION_LISTEN"]?.split(":")[1]);
  const socket = connect({ port, host: "127.0.0.1", rejectUnauthorized: false });
  socket.on("error", () => undefined).resume();
  await once(socket, "secureConnect");
  const authorization = 'Authorization: X-Matrix origin="them.example",key="ed25519:1",sig="c2ln"';
  const head = ["PUT /_matrix/federation/v1/send/1 HTTP/1.1", "Host: us", authorization, "Content-Length: 1000"];
  socket.write(`${head.join("\r\n")}\r\n\r\n{`);
  return socket;
}

describe("SIGTERM", () => {
  /** As long as a process may take from the signal to its end. */
  const WITHIN_MS = 10_000;

  async function endsOf(half: Half, during: () => Promise<void> = async () => {}): Promise<string> {
    lane.signal(half, "SIGTERM");
    const gone = lane.gone(half);
    await during();
    return await Promise.race([gone, delay(WITHIN_MS, "it goes on")]);
  }

  it("lets serve answer what it has taken, and ends it", async () => {
    const stage = await newStage();
    const { room, letGo } = await partialRoom(stage);
    letGo();
    const armed = await lane.arm("before: answer a client's message", "hold");
    const path = `rooms/${encodeURIComponent(room.roomId)}/send/m.room.message/last`;
    const answered = stage.alice.put(path, { msgtype: "m.text", body: "ours, last" });
    await armed.struck;
    expect(await endsOf("serve", async () => await armed.disarm())).toBe("exit code 0");
    expect(await answered).toHaveProperty("event_id");
    await lane.untilReady("serve");
    await talk(stage, room);
    expect((await aftermath(stage, room)).said).toEqual(["ours, last", "ours, meanwhile", "theirs, meanwhile"]);
  });

  it("ends serve though clients and other servers keep it waiting", async () => {
    const stage = await newStage();
    const { room, letGo } = await partialRoom(stage);
    letGo();
    await untilWhole(stage, room);
    const answer = resident.trouble({ kind: "hold", at: "send", forServer: lane.serverName });
    onTestFinished(answer);
    const { next_batch: since } = await stage.alice.get<{ next_batch: string }>("sync?timeout=0");
    const speak = stage.alice.say(room.roomId, "ours, unanswered");
    await until("it is sent", async () =>
      resident.front.requests.some(({ endpoint, origin }) => endpoint === "send" && origin === lane.serverName),
    );
    await speak;
    const filter = encodeURIComponent(JSON.stringify({ room: { rooms: [] } }));
    const waiting = stage.alice.get(`sync?timeout=60000&since=${since}&filter=${filter}`);
    const half = await sendHalf();
    const [end] = await Promise.all([endsOf("serve"), expect(waiting).rejects.toThrow(), once(half, "close")]);
    expect(end).toBe("exit code 0");
    answer();
    await lane.untilReady("serve");
    await talk(stage, room);
    expect((await aftermath(stage, room)).delivered).toEqual([
      "ours, meanwhile: 1",
      expect.stringMatching(/^ours, un/),
    ]);
  });

  it.each([
    ["serve", "postgres"],
    ["worker", "temporal"],
  ] as const)("ends %s while there is no %s", async (half, part) => {
    await grounds.kill(part);
    const end = await endsOf(half);
    await grounds.start(part);
    expect(end).toMatch(/^exit code/);
    await lane.untilReady(half);
  });

  it("lets a worker end the step that it is at, which is done once", async () => {
    const stage = await newStage();
    const { room, letGo } = await partialRoom(stage);
    const armed = await lane.arm("before: finish a resync", "hold");
    letGo();
    const half = await armed.struck;
    expect(await endsOf(half, async () => await armed.disarm())).toBe("exit code 0");
    await talk(stage, room);
    expect(await aftermath(stage, room)).toEqual(ENDS_WELL);
    expect(await toldTwice(room)).toEqual([]);
    await lane.untilReady(half);
  });

  it("cuts off the worker's request to a server that does not answer; another worker makes it again", async () => {
    const stage = await newStage();
    const armed = await lane.arm("before: report a fetched state", "hold");
    const { room, letGo } = await partialRoom(stage);
    const half = await armed.struck;
    await armed.disarm();
    expect(await endsOf(half)).toBe("exit code 0");
    letGo();
    await talk(stage, room);
    expect(await aftermath(stage, room)).toEqual(ENDS_WELL);
    await insist("to be ready", async () => await lane.untilReady(half));
  });
});
