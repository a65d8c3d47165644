import { setTimeout as sleep } from "node:timers/promises";
import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { openTestDatabase } from "../../support/database.ts";
import { aClient, answering, failureOf, startServer } from "./loopback-server.ts";
import type { Handler } from "./loopback-server.ts";

const database = await openTestDatabase();
const room = { roomId: "!room:x.example", eventId: "$event" } as const;

/** What /state makes of a hostile server's answer. */
async function failureOfState(handler: Handler, options: { timeoutMs?: number; maxBytes?: number } = {}) {
  const server = await startServer(handler);
  const request = { ...room, onEvent: () => undefined };
  const failure = await failureOf(aClient(database).state(server.name, request, { ignoreBackOff: true, ...options }));
  expect(failure.message).toBe(`${server.name}: ${failure.reason}`);
  return failure;
}

/** Writes for as long as the connection lasts. */
async function writeEndlessly(write: (chunk: string) => boolean, isOver: () => boolean, chunk: string): Promise<void> {
  while (!isOver()) {
    write(chunk);
    await sleep(1);
  }
}

describe("an answer that", () => {
  it("never begins is a timeout", async () => {
    const failure = await failureOfState(() => undefined, { timeoutMs: 200 });
    expect(failure).toMatchObject({ kind: "timeout", reason: "no answer in time" });
  });

  it("stops coming is a timeout", async () => {
    const failure = await failureOfState((_request, response) => void response.write('{"pdus":['), {
      timeoutMs: 2_000,
    });
    expect(failure).toMatchObject({ kind: "timeout", reason: "the answer took too long" });
  });

  it("drips is a timeout in the end", async () => {
    const handler: Handler = (_request, response) =>
      writeEndlessly(
        (chunk) => response.write(chunk),
        () => response.destroyed,
        " ",
      );
    expect((await failureOfState(handler, { timeoutMs: 300 })).kind).toBe("timeout");
  });

  it("has no end is cut off at the limit", async () => {
    let chunks = 0;
    const handler: Handler = (_request, response) => {
      response.write('{"auth_chain":[],"pdus":[1');
      return writeEndlessly(
        (chunk) => response.write(chunk, () => chunks++),
        () => response.destroyed,
        ",1".repeat(5000),
      );
    };
    const failure = await failureOfState(handler, { maxBytes: 100_000 });
    expect(failure).toMatchObject({ kind: "bad-response", reason: "the answer is larger than 100000 bytes" });
    const chunksThen = chunks;
    await sleep(100);
    expect(chunks).toBeLessThan(chunksThen + 20);
  });

  it("is a bomb is cut off while it unfolds", async () => {
    const bomb = gzipSync(Buffer.concat([Buffer.from('{"auth_chain":[],"pdus":['), Buffer.alloc(200_000_000, " ")]));
    const heapBefore = process.memoryUsage().rss;
    const failure = await failureOfState(
      (_request, response) => {
        response.writeHead(200, { "content-encoding": "gzip" });
        response.end(bomb);
      },
      { maxBytes: 1_000_000 },
    );
    expect(failure).toMatchObject({ kind: "bad-response", reason: "the answer is larger than 1000000 bytes" });
    expect(process.memoryUsage().rss - heapBefore).toBeLessThan(100_000_000);
  });

  it("holds one element without end is cut off long before the limit", async () => {
    const failure = await failureOfState((_request, response) => {
      response.write('{"auth_chain":[],"pdus":["');
      response.end("x".repeat(3_000_000));
    });
    expect(failure).toMatchObject({ kind: "bad-response" });
    expect(failure.reason).toContain("larger than 524288 bytes");
  });

  it("breaks off is a bad one", async () => {
    const short = await failureOfState((_request, response) => {
      response.writeHead(200, { "content-length": "1000" });
      response.write('{"pdus":[1', () => response.socket?.destroy());
    });
    expect(short.kind).toBe("bad-response");
    const chunked = await failureOfState((_request, response) => {
      response.write('{"pdus":[1', () => response.socket?.destroy());
    });
    expect(chunked.kind).toBe("bad-response");
    const compressed = await failureOfState((_request, response) => {
      response.writeHead(200, { "content-encoding": "gzip" });
      response.end(gzipSync('{"pdus":[],"auth_chain":[]}').subarray(0, -12));
    });
    expect(compressed.kind).toBe("bad-response");
  });

  it("ends too early is a bad one", async () => {
    const failure = await failureOfState(answering('{"pdus":[1],"auth_chain":[2'));
    expect(failure).toMatchObject({ kind: "bad-response", reason: "the text ends too early" });
  });

  it("is not UTF-8, or nested too deeply, is a bad one", async () => {
    const bytes = Buffer.from('{"pdus":["ab"],"auth_chain":[]}');
    bytes[10] = 0xff;
    expect(await failureOfState((_request, response) => void response.end(bytes))).toMatchObject({
      kind: "bad-response",
      reason: "the text is not UTF-8",
    });
    const deep = await failureOfState(answering(`{"auth_chain":[],"pdus":[${"[".repeat(5000)}${"]".repeat(5000)}]}`));
    expect(deep).toMatchObject({ kind: "bad-response" });
    expect(deep.reason).toContain("nested deeper");
  });

  it("is encoded as nobody asked for is a bad one", async () => {
    const failure = await failureOfState((_request, response) => {
      response.writeHead(200, { "content-encoding": "compress" });
      response.end("x");
    });
    expect(failure.reason).toContain('encoded as "compress"');
  });

  it("is no HTTP is a bad one", async () => {
    const failure = await failureOfState((_request, response) => void response.socket?.end("SSH-2.0-x\r\n\r\n"));
    expect(failure.kind).toBe("bad-response");
  });

  it("has headers without end is a bad one", async () => {
    const failure = await failureOfState((_request, response) => {
      response.writeHead(200, { "x-long": "x".repeat(50_000) });
      response.end("{}");
    });
    expect(failure.kind).toBe("bad-response");
  });

  it("redirects is a refusal: nobody is asked anew", async () => {
    const elsewhere = await startServer(answering({ pdus: [], auth_chain: [] }));
    const failure = await failureOfState((_request, response) => {
      response.writeHead(307, { location: `https://${elsewhere.name}/` });
      response.end();
    });
    expect(failure).toMatchObject({ kind: "refused", status: 307 });
    expect(elsewhere.seen).toEqual([]);
  });

  it.each([
    ["gzip", gzipSync],
    ["deflate", deflateSync],
    ["br", brotliCompressSync],
  ])("is encoded as %s is read", async (encoding, compress) => {
    const server = await startServer((_request, response) => {
      response.writeHead(200, { "content-encoding": encoding });
      response.end(compress(Buffer.from('{"pdus":[{"type":"é"}]}')));
    });
    expect(await aClient(database).event(server.name, "$a")).toEqual({ type: "é" });
    expect(server.seen[0]?.headers["accept-encoding"]).toContain(encoding);
  });
});
