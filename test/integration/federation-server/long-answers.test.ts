import { once } from "node:events";
import { createServer, get, type IncomingMessage } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { PassThrough, Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import express, { type Response } from "express";
import pino from "pino";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { answerError as answerClientError } from "../../../src/client-api/answer-error.ts";
import { sendLongJson } from "../../../src/federation-api/send-long-json.ts";
import { answerError } from "../../../src/federation-server/answer-error.ts";

const logged: string[] = [];
const log = new Writable({
  write(chunk, _encoding, done) {
    logged.push(String(chunk));
    done();
  },
});

const CHUNK = "x".repeat(65_536);
let produced = 0;
let ended: () => void = () => {};

async function* endless(): AsyncGenerator<string> {
  try {
    for (;;) {
      produced += CHUNK.length;
      yield CHUNK;
    }
  } finally {
    ended();
  }
}

async function* brokenBehind(length: number): AsyncGenerator<string> {
  yield `{"pdus":["${"x".repeat(length)}`;
  throw new Error("the database is gone");
}

async function* short(): AsyncGenerator<string> {
  yield "[1,";
  yield "2]";
}

const LONG = "x".repeat(2_000_000);
let connection: Socket | null = null;

async function* long(): AsyncGenerator<string> {
  yield LONG;
}

/** Goes on when all that there was has been taken, and the time is over. */
async function* slowlyRead(response: Response): AsyncGenerator<string> {
  yield LONG;
  yield LONG;
  do {
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  } while (!response.headersSent || response.writableLength > 0);
  response.socket?.emit("timeout");
  yield LONG;
}

const app = express();
app.disable("etag");
app.get("/endless", async (_request, response) => sendLongJson(response, endless()));
app.get("/broken/:behind", async (request, response) => {
  await sendLongJson(response, brokenBehind(Number(request.params["behind"])));
});
app.get("/short", async (_request, response) => sendLongJson(response, short()));
app.get("/long", async (_request, response) => {
  connection = response.socket;
  await sendLongJson(response, long(), 60_000);
});
app.get("/slowly-read", async (_request, response) => sendLongJson(response, slowlyRead(response)));
app.get("/endless/at-once", async (_request, response) => sendLongJson(response, endless(), 100));
const clients = express();
for (const edge of [app, clients]) {
  edge.get("/other-stream", async () => {
    await pipeline(Readable.from(["x"]), new PassThrough().end().destroy());
  });
}
clients.use(answerClientError(pino(log)));
app.use("/clients", clients);
app.use(answerError(pino(log)));
const server = createServer(app);
// Node's own time for the next request would hide what is left of another.
server.keepAliveTimeout = 0;
let origin = "";

beforeAll(async () => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

beforeEach(() => {
  logged.length = 0;
  produced = 0;
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

describe("sendLongJson", () => {
  it("breaks the connection off when it can't go on, and logs why", async () => {
    const response = await fetch(`${origin}/broken/2000000`);
    expect(response.status).toBe(200);
    await expect(response.text()).rejects.toThrow();
    expect(logged.join("")).toContain("the database is gone");
  });

  it("says that it can't go on while nothing is written yet", async () => {
    const response = await fetch(`${origin}/broken/1000`);
    expect(response.status).toBe(500);
    expect(await response.json()).toMatchObject({ errcode: "M_UNKNOWN" });
    expect(logged.join("")).toContain("the database is gone");
  });

  it("tells the length of a short answer", async () => {
    const response = await fetch(`${origin}/short`);
    expect(response.headers.get("content-type")).toBe("application/json; charset=utf-8");
    expect(response.headers.get("content-length")).toBe("5");
    expect(await response.text()).toBe("[1,2]");
  });

  it("reads no further than the receiver does, and stops when it goes away", async () => {
    const stopped = new Promise<void>((resolve) => {
      ended = resolve;
    });
    const request = get(`${origin}/endless`);
    const [response] = (await once(request, "response")) as [Writable];
    // Nobody reads: what is produced meanwhile fills the buffers of both sides, and no more.
    let before = -1;
    while (produced !== before) {
      before = produced;
      await new Promise((resolve) => {
        setTimeout(resolve, 200);
      });
    }
    expect(produced).toBeLessThan(64 * 1024 * 1024);
    response.destroy();
    await stopped;
    expect(logged).toEqual([]);
  });

  it("breaks the connection off when the receiver takes nothing any more", async () => {
    const stopped = new Promise<void>((resolve) => {
      ended = resolve;
    });
    const request = get(`${origin}/endless/at-once`);
    const [response] = (await once(request, "response")) as [IncomingMessage];
    const failed = once(response, "error");
    await stopped;
    response.resume();
    await failed;
    expect(logged).toEqual([]);
  });

  it("waits for its own reading, however long that takes", async () => {
    const response = await fetch(`${origin}/slowly-read`);
    expect(await response.text()).toHaveLength(3 * LONG.length);
  });

  it("leaves no limit behind on a connection that stays", async () => {
    expect(await (await fetch(`${origin}/long`)).text()).toHaveLength(LONG.length);
    await expect.poll(() => connection?.timeout, { timeout: 10_000 }).toBe(0);
    expect(connection?.destroyed).toBe(false);
  });
});

describe("answerError", () => {
  it.each(["/other-stream", "/clients/other-stream"])(
    "answers where another stream has ended early: %s",
    async (path) => {
      const response = await fetch(`${origin}${path}`, { signal: AbortSignal.timeout(10_000) });
      expect(response.status).toBe(500);
      expect(logged.join("")).toContain("ERR_STREAM_PREMATURE_CLOSE");
    },
  );
});
