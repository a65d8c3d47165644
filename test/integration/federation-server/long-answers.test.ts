import { once } from "node:events";
import { createServer, get } from "node:http";
import type { AddressInfo } from "node:net";
import { Writable } from "node:stream";
import express from "express";
import pino from "pino";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { answerError, sendLongJson } from "../../../src/federation-server/answer-error.ts";

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

async function* broken(): AsyncGenerator<string> {
  yield '{"pdus":[';
  throw new Error("the database is gone");
}

const app = express();
app.get("/endless", async (_request, response) => sendLongJson(response, endless()));
app.get("/broken", async (_request, response) => sendLongJson(response, broken()));
app.use(answerError(pino(log)));
const server = createServer(app);
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
    const response = await fetch(`${origin}/broken`);
    expect(response.status).toBe(200);
    await expect(response.text()).rejects.toThrow();
    expect(logged.join("")).toContain("the database is gone");
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
});
