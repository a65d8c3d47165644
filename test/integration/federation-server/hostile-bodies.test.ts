import { subscribe } from "node:diagnostics_channel";
import { connect, type Socket } from "node:net";
import { Writable } from "node:stream";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { gzipSync } from "node:zlib";
import pino from "pino";
import { afterAll, describe, expect, it, onTestFinished } from "vitest";
import { createFederationApp } from "../../../src/federation-server/app.ts";
import { openListener } from "../../../src/main/listener.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aRoomsContext, startLoopbackFederation } from "../../support/loopback-federation.ts";

const MIB = 1_048_576;
const SEND = "/_matrix/federation/v1/send/1";
const logged: string[] = [];
const log = new Writable({
  write(chunk, _encoding, done) {
    logged.push(String(chunk));
    done();
  },
});

const ctx = aRoomsContext(await openTestDatabase(), { logger: pino({ level: "info" }, log) });
const them = await (await startLoopbackFederation(ctx)).remote("them.example");
async function aListener(bounds: { readonly arrivesWithinMs?: number; readonly maxConnections?: number }) {
  const listener = await openListener(createFederationApp(ctx), {
    variable: "FASTJOIN_FEDERATION_LISTEN",
    listen: { host: "127.0.0.1", port: 0 },
    logger: ctx.logger,
    ...bounds,
  });
  afterAll(() => listener.close());
  return Number(new URL(listener.url).port);
}

const patient = await aListener({ maxConnections: 40 });
const hasty = await aListener({ arrivesWithinMs: 300 });

interface Line {
  readonly socket: Socket;
  /** What has come back until now. */
  heard(): string;
  /** All that came back, once the connection is over or the answer has this text in it. */
  answer(until?: string): Promise<string>;
}

/** A connection whose bytes the test writes itself. */
function aLine(port = patient): Line {
  const socket = connect(port, "127.0.0.1");
  let text = "";
  socket.on("data", (chunk) => (text += String(chunk)));
  // A reset is an end like any other here.
  socket.on("error", () => undefined);
  onTestFinished(() => void socket.destroy());
  return {
    socket,
    heard: () => text,
    async answer(until) {
      await expect.poll(() => socket.closed || (until !== undefined && text.includes(until))).toBe(true);
      return text;
    },
  };
}

function head(headers: readonly string[], method = "PUT", path = SEND): string {
  return `${method} ${path} HTTP/1.1\r\n${["Host: us.example", ...headers].join("\r\n")}\r\n\r\n`;
}

function signed(path = SEND): string {
  return `Authorization: ${them.header("PUT", path, { pdus: [] })}`;
}

/** Writes as fast as the other side reads, until the line is closed. */
async function pour(socket: Socket, pieces: Iterable<Buffer>): Promise<void> {
  const over = closed(socket);
  for (const piece of pieces) {
    if (socket.destroyed) return;
    if (!socket.write(piece)) await Promise.race([new Promise((go) => socket.once("drain", go)), over]);
  }
}

function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve();
    socket.once("close", () => resolve());
  });
}

function* times(count: number, piece: Buffer): Generator<Buffer> {
  for (let n = 0; n < count; n += 1) yield piece;
}

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** In bytes, of V8's heap. Twice: what has a finalizer outlives the first collection. */
function heldWithoutGarbage(): number {
  collectGarbage();
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

/** The listeners' ends of the lines, by the other end's port. */
const accepted = new Map<number | undefined, Socket>();
subscribe("net.server.socket", (message) => {
  const { socket } = message as { readonly socket: Socket };
  accepted.set(socket.remotePort, socket);
});

async function expectAlive(): Promise<void> {
  const body = JSON.stringify({ pdus: [] });
  const { socket, answer } = aLine();
  const path = `/_matrix/federation/v1/send/alive${Math.random()}`;
  socket.write(head([signed(path), "Connection: close", `Content-Length: ${body.length}`], "PUT", path) + body);
  expect(await answer()).toContain("200 OK");
}

describe("a request body that", () => {
  it("says that it is too large is refused before it comes", async () => {
    const { socket, answer } = aLine();
    socket.write(head([signed(), `Content-Length: ${600 * MIB}`]));
    const text = await answer();
    expect(text).toContain("413 Payload Too Large");
    expect(text).toContain('"errcode":"M_TOO_LARGE"');
  });

  it("is too large without saying so is cut off at the limit", async () => {
    const { socket, answer } = aLine();
    socket.write(head([signed(), "Transfer-Encoding: chunked"]));
    const chunk = Buffer.concat([Buffer.from("100000\r\n"), Buffer.alloc(MIB, " "), Buffer.from("\r\n")]);
    await pour(socket, times(600, chunk));
    expect(await answer()).toContain('"errcode":"M_TOO_LARGE"');
    expect(socket.bytesWritten).toBeLessThan(300 * MIB);
  });

  it("unfolds to a hundred megabytes is cut off while it does", async () => {
    const bomb = gzipSync(Buffer.alloc(100 * MIB, " "));
    const { socket, answer } = aLine();
    socket.write(head([signed(), "Content-Encoding: gzip", `Content-Length: ${bomb.length}`]));
    socket.write(bomb);
    expect(await answer()).toContain('"errcode":"M_TOO_LARGE"');
  });

  it("comes in chunks of one byte takes no more memory than another", async () => {
    const { socket, answer } = aLine();
    const before = heldWithoutGarbage();
    socket.write(head([signed(), "Transfer-Encoding: chunked"]));
    const chunks = Buffer.from("1\r\n \r\n".repeat(10_000));
    await pour(socket, times(10, chunks));
    await expect.poll(() => accepted.get(socket.localPort)?.bytesRead).toBe(socket.bytesWritten);
    // Kept as they come, they take more than ten.
    expect(heldWithoutGarbage() - before).toBeLessThan(4 * MIB);
    socket.write("0\r\n\r\n");
    expect(await answer("errcode")).toContain('"errcode":"M_NOT_JSON"');
  });

  it("is cut off is told so", async () => {
    logged.length = 0;
    const { socket, answer } = aLine();
    socket.write(head([signed(), "Content-Length: 100"]));
    socket.end('{"pdus":[');
    expect(await answer()).toContain("The request was cut off");
    expect(logged.join("")).toContain("The request was cut off");
    expect(logged.join("")).not.toContain("a federation request failed");
  });

  it("comes one byte at a time, forever, ends when its time is over", async () => {
    logged.length = 0;
    const { socket, answer } = aLine(hasty);
    socket.write(head([signed(), "Content-Length: 1000000"]));
    const dripping = setInterval(() => socket.write(" "), 20);
    const text = await answer();
    clearInterval(dripping);
    expect(text).toContain("408 Request Timeout");
    expect(text).toContain("The request did not arrive in time");
    expect(logged.join("")).toContain("The request did not arrive in time");
  });

  it("holds more values than any transaction is not parsed", async () => {
    const body = `{"pdus":[${"[],".repeat(1_300_000)}[]]}`;
    const { socket, answer } = aLine();
    socket.write(head([signed(), "Connection: close", `Content-Length: ${body.length}`]));
    socket.write(body);
    const text = await answer();
    expect(text).toContain('"errcode":"M_NOT_JSON"');
    expect(text).toContain("more than 1200000 values");
  });
});

describe("headers that", () => {
  it.each([
    ["are larger than any could have to be", head([`X-Long: ${"x".repeat(40_000)}`]), "431"],
    ["hold an X-Matrix header that is too long", head([`Authorization: X-Matrix origin="${"a".repeat(9000)}"`]), "401"],
    ["hold bytes that are no text", head(['Authorization: X-Matrix origin="\u0001"']), "400"],
    ["are no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n", "400"],
    ["are two lengths at once", head([signed(), "Content-Length: 5", "Transfer-Encoding: chunked"]), "400"],
  ])("%s are refused", async (_what, bytes, status) => {
    const { socket, answer } = aLine();
    socket.write(bytes);
    const text = await answer("errcode");
    expect(text).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(text).toContain('"errcode":"M_');
  });

  it("never end are refused when their time is over", async () => {
    const { socket, answer } = aLine(hasty);
    socket.write(`PUT ${SEND} HTTP/1.1\r\nHost: us.example\r\nX-Slow: `);
    expect(await answer()).toContain("The request did not arrive in time");
  });
});

describe("a flood of", () => {
  it("large bodies that do not end makes room for those that do, and takes bounded memory", async () => {
    const flood = Array.from({ length: 12 }, () => aLine());
    for (const { socket } of flood) {
      socket.write(head([signed(), `Content-Length: ${12 * MIB}`]));
      await pour(socket, times(11, Buffer.alloc(MIB, " ")));
    }
    await expectAlive();
    // Of 24 MiB there is room for two of them.
    const refused = (): readonly Line[] =>
      flood.filter(({ heard }) => heard().includes("Too many large requests arrive at once"));
    await expect.poll(() => refused().length).toBeGreaterThanOrEqual(10);
  });

  it("connections is turned away beyond the limit, and those that are there are served", async () => {
    const flood = Array.from({ length: 60 }, () => aLine());
    await expect.poll(() => flood.filter(({ socket }) => socket.closed).length).toBeGreaterThanOrEqual(20);
    for (const { socket } of flood) socket.destroy();
    await Promise.all(flood.map(({ socket }) => closed(socket)));
    await expect
      .poll(
        async () =>
          await expectAlive()
            .then(() => true)
            .catch(() => false),
      )
      .toBe(true);
  });
});
