import { describe, expect, it } from "vitest";
import { createWellKnownLookup, wellKnownTtl } from "../../../src/federation-client/well-known.ts";
import type { WellKnownAnswer } from "../../../src/federation-client/well-known.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

function anAnswer(changes: Partial<WellKnownAnswer> = {}): WellKnownAnswer {
  return { status: 200, cacheControl: undefined, expires: undefined, body: '{"m.server":"y.example"}', ...changes };
}

/** A lookup whose clock and host the test moves. */
function aLookup(first: WellKnownAnswer | Error) {
  const host = { now: 1_000_000, answer: first, asked: 0 };
  const lookup = createWellKnownLookup(
    async () => {
      host.asked++;
      if (host.answer instanceof Error) throw host.answer;
      return host.answer;
    },
    () => host.now,
  );
  return { host, lookup };
}

describe("wellKnownTtl", () => {
  it.each([
    ["nothing said", {}, 24 * HOUR],
    ["max-age", { cacheControl: "public, max-age=7200" }, 2 * HOUR],
    ["max-age beyond two days", { cacheControl: "max-age=99999999" }, 48 * HOUR],
    ["max-age of nothing", { cacheControl: "max-age=0" }, 5 * MINUTE],
    ["no-store", { cacheControl: "No-Store, max-age=7200" }, 5 * MINUTE],
    ["Expires", { expires: new Date(3 * HOUR).toUTCString() }, 3 * HOUR],
    ["Expires in the past", { expires: "0 and bad" }, 24 * HOUR],
    ["max-age over Expires", { cacheControl: "max-age=3600", expires: new Date(9 * HOUR).toUTCString() }, HOUR],
  ])("heeds the headers: %s", (_what, headers, ttl) => {
    expect(wellKnownTtl(anAnswer(headers), 0)).toBe(ttl);
  });
});

describe("createWellKnownLookup", () => {
  it("keeps a delegation for 24 hours", async () => {
    const { host, lookup } = aLookup(anAnswer());
    expect(await lookup("x.example")).toBe("y.example");
    host.now += 24 * HOUR - 1;
    await lookup("x.example");
    expect(host.asked).toBe(1);
    host.now += 1;
    await lookup("x.example");
    expect(host.asked).toBe(2);
  });

  it.each([
    ["404", anAnswer({ status: 404 })],
    ["no JSON", anAnswer({ body: "<html>" })],
    ["no m.server", anAnswer({ body: "{}" })],
    ["an m.server that is no server name", anAnswer({ body: '{"m.server":"https://y"}' })],
    ["a list", anAnswer({ body: "[]" })],
  ])("takes %s as no delegation, for an hour", async (_what, answer) => {
    const { host, lookup } = aLookup(answer);
    expect(await lookup("x.example")).toBeUndefined();
    host.now += HOUR - 1;
    await lookup("x.example");
    expect(host.asked).toBe(1);
    host.now += 1;
    await lookup("x.example");
    expect(host.asked).toBe(2);
  });

  it("asks a host again soon that could not be asked", async () => {
    const { host, lookup } = aLookup(new Error("no route"));
    expect(await lookup("x.example")).toBeUndefined();
    host.answer = anAnswer();
    host.now += 10 * MINUTE;
    expect(await lookup("x.example")).toBe("y.example");
  });

  it("asks a host again when the clock was set back to long before it was asked", async () => {
    const { host, lookup } = aLookup(anAnswer());
    host.now += 48 * HOUR;
    expect(await lookup("x.example")).toBe("y.example");
    host.answer = anAnswer({ body: '{"m.server":"z.example"}' });
    host.now -= 48 * HOUR;
    expect(await lookup("x.example")).toBe("z.example");
  });

  it("keeps to a delegation of the last two days while its host is away", async () => {
    const { host, lookup } = aLookup(anAnswer());
    await lookup("x.example");
    host.answer = anAnswer({ status: 502 });
    host.now += 25 * HOUR;
    expect(await lookup("x.example")).toBe("y.example");
    host.now += 24 * HOUR;
    expect(await lookup("x.example")).toBeUndefined();
  });

  it("asks once for many at the same time", async () => {
    const { host, lookup } = aLookup(anAnswer());
    expect(await Promise.all([lookup("x.example"), lookup("x.example")])).toEqual(["y.example", "y.example"]);
    expect(host.asked).toBe(1);
  });
});
