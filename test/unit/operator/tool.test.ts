import { PassThrough, Readable } from "node:stream";

import { describe, expect, it } from "vitest";

import type { Event } from "../../../src/matrix/event.ts";
import { contentHash } from "../../../src/matrix/hashes.ts";
import type { UserId } from "../../../src/matrix/identifiers.ts";
import { isJsonObject, parseJson, stringifyJson } from "../../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../../src/matrix/json.ts";
import { ROOM_VERSIONS } from "../../../src/matrix/room-versions.ts";
import { stateEntries } from "../../../src/matrix/state.ts";
import type { StateMap } from "../../../src/matrix/state.ts";
import { isToolName, runTool, TOOL_NAMES } from "../../../src/operator/tool.ts";
import type { ToolName } from "../../../src/operator/tool.ts";
import { ALL_RULES, aSignedPdu, rulesFor, TEST_KEY } from "../../support/a-pdu.ts";
import { ALICE, aRoom, BOB, CHARLIE, DORA, member, openRoom, topic } from "../../support/builders.ts";

/** What the tool writes when it reads these chunks. */
async function output(name: ToolName, ...chunks: readonly (string | Buffer)[]): Promise<string> {
  const written = new PassThrough();
  const text = (async () => {
    let all = "";
    for await (const chunk of written.setEncoding("utf8")) all += chunk;
    return all;
  })();
  await runTool(name, Readable.from(chunks.map((chunk) => Buffer.from(chunk))), written);
  written.end();
  return text;
}

async function answers(name: ToolName, ...lines: readonly JsonValue[]): Promise<readonly JsonObject[]> {
  const text = await output(name, lines.map((line) => `${stringifyJson(line)}\n`).join(""));
  return text
    .trimEnd()
    .split("\n")
    .map((line) => {
      const value = parseJson(line);
      if (!isJsonObject(value)) throw new Error(`not an object: ${line}`);
      return value;
    });
}

async function answer(name: ToolName, line: JsonValue): Promise<JsonObject> {
  const [only] = await answers(name, line);
  return only ?? {};
}

async function errorCode(name: ToolName, line: JsonValue): Promise<unknown> {
  const { error } = await answer(name, line);
  return isJsonObject(error) ? error["code"] : undefined;
}

const entry = ({ eventId, pdu, rejected }: Event): JsonObject => ({
  event_id: eventId,
  pdu,
  ...(rejected ? { rejected } : {}),
});
const idsIn = (state: StateMap): readonly string[] => [...stateEntries(state)].map(([, id]) => id);

describe("runTool", () => {
  it("knows the tools of the command line", () => {
    expect([...TOOL_NAMES].sort()).toEqual(["authorize", "event-id", "redact", "resolve-state", "verify"]);
    expect(isToolName("redact")).toBe(true);
    expect(isToolName("toString")).toBe(false);
  });

  it("answers a bad line by an error and reads on", async () => {
    const good = stringifyJson({ room_version: "11", pdu: aSignedPdu(rulesFor("11")) });
    const lines = (await output("event-id", `{"room_version":\n[]\n\n${good}\r\nnull\n${good}`)).trimEnd().split("\n");
    expect(lines.map((line) => /"code":"(\w+)"/.exec(line)?.[1] ?? "fine")).toEqual([
      "JSON_SYNTAX",
      "BAD_INPUT",
      "JSON_SYNTAX",
      "fine",
      "BAD_INPUT",
      "fine",
    ]);
  });

  it("reads lines that come in pieces, and does not take U+2028 for the end of one", async () => {
    const pdu = aSignedPdu(rulesFor("11"), { content: { body: "one\u2028two ✓" } });
    const bytes = Buffer.from(`${JSON.stringify({ room_version: "11", pdu })}\n`);
    const pieces = [...bytes].map((byte) => Buffer.from([byte]));
    expect(await output("event-id", ...pieces, bytes)).toMatch(/^(\{"event_id":"\$[\w-]{43}"\}\n)\1$/);
  });

  it("answers bytes that are not UTF-8 by an error", async () => {
    expect(await output("event-id", Buffer.from([0x22, 0xff, 0x22, 0x0a]))).toContain("NOT_UTF_8");
  });

  it("waits for a slow reader instead of filling memory", async () => {
    const line = `${stringifyJson({ room_version: "11", pdu: aSignedPdu(rulesFor("11")) })}\n`;
    const slow = new PassThrough({ highWaterMark: 16 });
    let seen = 0;
    const reading = (async () => {
      for await (const chunk of slow) {
        seen += String(chunk).split("\n").length - 1;
        expect(slow.writableLength).toBeLessThan(200);
      }
    })();
    await runTool("event-id", Readable.from(Array.from({ length: 50 }, () => Buffer.from(line))), slow);
    slow.end();
    await reading;
    expect(seen).toBe(50);
  });

  it.each(["99", 11, undefined, null])("knows no room version %j", async (version) => {
    for (const name of TOOL_NAMES) {
      const input = { pdu: { type: "x", content: {} }, ...(version === undefined ? {} : { room_version: version }) };
      expect(await errorCode(name, input)).toBe("UNKNOWN_ROOM_VERSION");
    }
  });
});

describe("the tool resolve-state", () => {
  it.each(ROOM_VERSIONS)("resolves states of room version %s", async (version) => {
    const room = aRoom(version);
    const start = openRoom(room, { [BOB]: 50 });
    const ban = room.send(start, member(ALICE, "ban", BOB));
    const vain = room.send(start, topic(BOB, "In vain"), member(DORA, "join"));
    const events = [...room.events.values()].map(entry);
    const { resolved } = await answer("resolve-state", {
      room_version: version,
      events,
      state_sets: [idsIn(ban.state), idsIn(vain.state)],
    });
    expect(resolved).toMatchObject({
      "m.room.create\u001f": room.create.eventId,
      [`m.room.member\u001f${BOB}`]: ban.tip.eventId,
      [`m.room.member\u001f${DORA}`]: vain.tip.eventId,
    });
    expect(isJsonObject(resolved) && "m.room.topic\u001f" in resolved).toBe(version === "1");
  });

  it("does not let a rejected event in", async () => {
    const room = aRoom("11");
    const start = openRoom(room);
    const bad = room.add(start, { ...topic(ALICE, "Rejected"), rejected: true });
    const { resolved } = await answer("resolve-state", {
      room_version: "11",
      events: [...room.events.values()].map(entry),
      state_sets: [idsIn(start.state), [...idsIn(start.state), bad.eventId]],
    });
    expect(Object.keys(isJsonObject(resolved) ? resolved : {})).toHaveLength(6);
  });

  it("takes events without what matters to no rule", async () => {
    const pdu = { type: "m.room.create", sender: ALICE, state_key: "", content: {} };
    const events = [{ event_id: "$create", pdu }];
    expect(await answer("resolve-state", { room_version: "12", events, state_sets: [["$create"]] })).toEqual({
      resolved: { "m.room.create\u001f": "$create" },
    });
    expect(await answer("resolve-state", { room_version: "12", events: [], state_sets: [] })).toEqual({ resolved: {} });
  });

  it.each([
    ["events", { events: {} }, "BAD_INPUT"],
    ["an event id", { events: [{ event_id: "x", pdu: {} }] }, "BAD_INPUT"],
    ["a pdu", { events: [{ event_id: "$x" }] }, "BAD_INPUT"],
    ["a room id", { events: [{ event_id: "$x", pdu: { type: "t", sender: "@a:x", content: {} } }] }, "BAD_INPUT"],
    ["a state set", { state_sets: ["$x"] }, "BAD_INPUT"],
    ["a state event", { state_sets: [["$unknown"]] }, "UNKNOWN_EVENT"],
  ])("says what is wrong with %s", async (_what, fields, code) => {
    const line = { room_version: "11", events: [], state_sets: [], ...fields };
    expect(await errorCode("resolve-state", line)).toBe(code);
  });

  it.each([
    ["depth", "1.5"],
    ["origin_server_ts", "1e3"],
    ["auth_events", "[5]"],
    ["prev_events", "{}"],
    ["state_key", "5"],
    ["content", "[]"],
    ["sender", "null"],
  ])("says what is wrong with the %s %s of an event", async (field, text) => {
    const fields = { type: '"t"', sender: '"@a:x"', content: "{}", room_id: '"!r:x"', [field]: text };
    const pdu = `{${Object.entries(fields)
      .map(([key, value]) => `"${key}":${value}`)
      .join(",")}}`;
    const line = `{"room_version":"5","events":[{"event_id":"$x","pdu":${pdu}}],"state_sets":[]}`;
    expect(await output("resolve-state", line)).toContain('"code":"BAD_INPUT"');
  });
});

describe("the tool authorize", () => {
  const ask = async (sender: UserId, rejected = false) => {
    const room = aRoom("11");
    const start = openRoom(room);
    const event = entry(room.add(start, topic(sender, "Hello")));
    const state = [...room.events.values()]
      .filter(({ eventId }) => idsIn(start.state).includes(eventId))
      .map((one) => entry({ ...one, rejected: rejected && one.pdu.state_key === sender }));
    return answer("authorize", { room_version: "11", event, state });
  };

  it("answers the verdict with the rule that decided", async () => {
    expect(await ask(ALICE)).toEqual({ allowed: true, rule: "event", reason: "" });
    expect(await ask(CHARLIE)).toEqual({
      allowed: false,
      rule: "event.power",
      reason: "m.room.topic needs the power level 50, @charlie:three.example has 0",
    });
  });

  it("does not see rejected events of the state", async () => {
    expect(await ask(ALICE, true)).toMatchObject({ allowed: false, rule: "sender.not-joined" });
  });

  it("says what is wrong with its input", async () => {
    const room = aRoom("11");
    const event = entry(room.create);
    const message = entry(room.add(room.root, { type: "m.room.message", sender: ALICE }));
    expect(await errorCode("authorize", { room_version: "11", event })).toBe("BAD_INPUT");
    expect(await errorCode("authorize", { room_version: "11", state: [] })).toBe("BAD_INPUT");
    expect(await errorCode("authorize", { room_version: "11", event, state: [message] })).toBe("BAD_INPUT");
  });
});

describe("the tool event-id", () => {
  it.each(ROOM_VERSIONS)("computes the ids of room version %s", async (version) => {
    const { create } = aRoom(version);
    expect(await answer("event-id", { room_version: version, pdu: create.pdu })).toEqual({ event_id: create.eventId });
  });

  it("hashes numbers as they were written up to version 5", async () => {
    const withNumber = (number: string) =>
      `{"room_version":"5","pdu":{"type":"m.room.create","sender":"@a:x","content":{},"depth":${number}}}\n`;
    const ids = await output("event-id", withNumber("9007199254740993"), withNumber("9007199254740992"));
    const [one, other] = ids.split("\n");
    expect(one).toMatch(/event_id/);
    expect(one).not.toBe(other);
  });

  it("answers an event that has no canonical form by an error", async () => {
    const line = '{"room_version":"6","pdu":{"type":"m.room.create","content":{},"depth":1.5}}';
    expect(await output("event-id", line)).toContain('"code":"CANONICAL_JSON"');
  });

  it("asks for the event_id of the pdu up to version 2", async () => {
    expect(await errorCode("event-id", { room_version: "2", pdu: { type: "t", content: {} } })).toBe("BAD_INPUT");
  });
});

describe("the tool redact", () => {
  it("keeps what the room version keeps, and numbers as they were written", async () => {
    const pdu = '{"type":"m.room.message","content":{"body":"x"},"origin":"o","unsigned":{},"depth":9007199254740993}';
    expect(await output("redact", `{"room_version":"5","pdu":${pdu}}`)).toBe(
      '{"pdu":{"type":"m.room.message","content":{},"depth":9007199254740993,"origin":"o"}}\n',
    );
    expect(await output("redact", `{"room_version":"11","pdu":${pdu}}`)).toBe(
      '{"pdu":{"type":"m.room.message","content":{},"depth":9007199254740993}}\n',
    );
  });
});

describe("the tool verify", () => {
  const key = Buffer.from(TEST_KEY.publicKey).toString("base64").replace(/=+$/, "");
  const keysWith = (fields: JsonObject): JsonObject => ({ "example.org": { [TEST_KEY.keyId]: { key, ...fields } } });
  const signed = (ok: boolean) => ({ signatures: { "example.org": { [TEST_KEY.keyId]: ok } } });

  it.each(ALL_RULES)("checks hash and signatures of room version $version", async (rules) => {
    const pdu = aSignedPdu(rules);
    const line = { room_version: rules.version, pdu, keys: keysWith({}) };
    expect(await answer("verify", line)).toEqual({ hash_ok: true, ...signed(true) });
    const changed = { ...pdu, content: { body: "changed" } };
    expect(await answer("verify", { ...line, pdu: changed })).toEqual({ hash_ok: false, ...signed(true) });
    const moved = { ...pdu, sender: "@mallory:example.org" };
    expect(await answer("verify", { ...line, pdu: moved })).toEqual({ hash_ok: false, ...signed(false) });
  });

  it("asks for a key that was valid when the event was made, from version 5 on", async () => {
    const at = 1_700_000_000_000;
    const check = async (version: "4" | "5", fields: JsonObject) =>
      (await answer("verify", { room_version: version, pdu: aSignedPdu(rulesFor(version)), keys: keysWith(fields) }))
        .signatures;
    for (const field of ["valid_until_ts", "expired_ts"]) {
      expect(await check("5", { [field]: at })).toEqual(signed(true).signatures);
      expect(await check("5", { [field]: at - 1 })).toEqual(signed(false).signatures);
      expect(await check("4", { [field]: at - 1 })).toEqual(signed(true).signatures);
    }
    expect(await check("5", { valid_until_ts: at - 1, expired_ts: at })).toEqual(signed(true).signatures);
  });

  it("answers false for a key that is unknown or no key", async () => {
    const rules = rulesFor("11");
    const pdu = aSignedPdu(rules);
    for (const keys of [
      undefined,
      {},
      { "example.org": {} },
      { "example.org": { [TEST_KEY.keyId]: { key: "short" } } },
    ]) {
      const line = { room_version: "11", pdu, ...(keys === undefined ? {} : { keys }) };
      expect(await answer("verify", line)).toEqual({ hash_ok: true, ...signed(false) });
    }
    const unsigned = { type: "t", content: {} };
    const pduOf = { ...unsigned, hashes: { sha256: contentHash({ ...pdu, ...unsigned }, rules) } };
    expect(await answer("verify", { room_version: "11", pdu: pduOf })).toEqual({ hash_ok: false, signatures: {} });
  });

  it("says what is wrong with its keys", async () => {
    const pdu = aSignedPdu(rulesFor("11"));
    for (const keys of [[], { "example.org": 5 }, { "example.org": { [TEST_KEY.keyId]: key } }, keysWith({ key: 5 })]) {
      expect(await errorCode("verify", { room_version: "11", pdu, keys })).toBe("BAD_INPUT");
    }
    expect(await errorCode("verify", { room_version: "11", pdu, keys: keysWith({ expired_ts: "soon" }) })).toBe(
      "BAD_INPUT",
    );
  });
});
