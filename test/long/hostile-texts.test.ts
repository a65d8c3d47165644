import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { authorizationHeader, parseXMatrix } from "../../src/federation-api/x-matrix.ts";
import { discoverServer } from "../../src/federation-client/discovery.ts";
import { fetchKeysFromNotary, fetchOwnKeys } from "../../src/federation-client/fetch-server-keys.ts";
import { createJsonSplitter } from "../../src/federation-client/json-splitter.ts";
import type { JsonPiece } from "../../src/federation-client/json-splitter.ts";
import { readSmallJson } from "../../src/federation-client/large-json.ts";
import {
  directoryResponseOf,
  knockRoomStateOf,
  membershipTemplateOf,
  objectOf,
  sendJoinSummaryOf,
  serverKeysOf,
  signedInviteOf,
  singleEventOf,
  transactionResponseOf,
} from "../../src/federation-client/read-answers.ts";
import { eventsIn, readStateIds } from "../../src/federation-client/read-lists.ts";
import { keySetOf } from "../../src/federation-client/server-key-set.ts";
import { createWellKnownLookup, wellKnownTtl } from "../../src/federation-client/well-known.ts";
import type { WellKnownAnswer } from "../../src/federation-client/well-known.ts";
import { parseBody } from "../../src/federation-server/parse-body.ts";
import { readClaimedOrigin } from "../../src/federation-server/authenticate-request.ts";
import { isServerName } from "../../src/matrix/identifiers.ts";
import { isJsonObject, parseJson, stringifyJson } from "../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";
import { signingKeyFromSeed, signJson } from "../../src/matrix/signatures.ts";
import { byteMutations, mutated, mutatedBytes, mutation, realRoom } from "../property/arbitrary-real-events.ts";
import { runs } from "../support/fuzz.ts";

const NOW = 1_700_000_000_000;
const KEY = signingKeyFromSeed("ed25519:1", Buffer.alloc(32, 1));
const NOTARY_KEY = signingKeyFromSeed("ed25519:n", Buffer.alloc(32, 2));

/** What the work gives, or undefined where it throws an error by one of these names; any other fails the test. */
async function onlyThrowing<T>(names: readonly string[], work: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (!names.includes((error as Error).name)) throw error;
    expect((error as Error).message).not.toBe("");
    return undefined;
  }
}

const JSON_FAULTS = ["LargeJsonError", "JsonSyntaxError"];

async function* inPieces(bytes: Uint8Array, cuts: readonly number[]): AsyncGenerator<Uint8Array> {
  let from = 0;
  for (const cut of [...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length]) {
    yield bytes.subarray(from, cut);
    from = cut;
  }
}

const cutList = fc.array(fc.nat(), { maxLength: 8 });

describe("parseXMatrix", () => {
  const request = { method: "GET", uri: "/_matrix/x", origin: "a.example", destination: "us.example" } as const;
  const good = Buffer.from(authorizationHeader(request, KEY), "latin1");

  it("reads a mutated header or does not, and what is wrong with it is told by 401", async () => {
    const property = fc.asyncProperty(byteMutations, async (by) => {
      const header = Buffer.from(mutatedBytes(good, by)).toString("latin1");
      const credentials = parseXMatrix(header);
      if (credentials !== undefined) expect(isServerName(credentials.origin)).toBe(true);
      const claimed = await onlyThrowing(["MatrixError"], () => readClaimedOrigin("us.example", [header]));
      expect(claimed === undefined || isServerName(claimed.origin)).toBe(true);
    });
    await fc.assert(property, runs(20_000));
  });
});

/** True answers of each kind, made of real events. */
function answersOf(room: { readonly events: readonly { readonly eventId: string; readonly pdu: JsonObject }[] }) {
  const pdus = room.events.map(({ pdu }) => pdu);
  const ids = room.events.map(({ eventId }) => eventId);
  const template = { event: pdus.at(-1) ?? {}, room_version: "11" };
  return {
    template,
    sendJoin: {
      origin: "a.example",
      members_omitted: true,
      servers_in_room: ["a.example"],
      state: pdus,
      auth_chain: pdus,
    },
    stateIds: { pdu_ids: ids, auth_chain_ids: ids },
    single: { origin: "a.example", origin_server_ts: 1, pdus: pdus.slice(0, 1) },
    list: { events: pdus, pdus, auth_chain: pdus },
    transaction: { pdus: Object.fromEntries(ids.map((id, at) => [id, at % 2 === 0 ? {} : { error: "no" }])) },
    directory: { room_id: "!a:b", servers: ["a.example", "b.example:1"] },
    knock: { knock_room_state: pdus },
    invite: { event: pdus[0] ?? {} },
    keys: keyList(),
  };
}

function keyList(): JsonObject {
  const base64 = Buffer.from(KEY.publicKey).toString("base64").replace(/=+$/, "");
  const old = { "ed25519:0": { key: base64, expired_ts: 5 } };
  const list = { server_name: "a.example", valid_until_ts: NOW + 1, verify_keys: { "ed25519:1": { key: base64 } } };
  return signJson({ ...list, old_verify_keys: old }, "a.example", KEY);
}

describe("the readers of answers", () => {
  it("give the promised shape of mutated answers or throw their own errors", async () => {
    const property = fc.asyncProperty(realRoom, mutation, async (room, by) => {
      const answers = answersOf(room);
      const read = (answer: JsonObject, shape: (value: JsonValue) => unknown): Promise<unknown> =>
        onlyThrowing(["LargeJsonError"], () => shape(mutated(answer, by)));
      await read(answers.template, membershipTemplateOf);
      await read(answers.single, singleEventOf);
      await read(answers.transaction, transactionResponseOf);
      await read(answers.directory, directoryResponseOf);
      await read(answers.knock, knockRoomStateOf);
      await read(answers.invite, signedInviteOf);
      await read(answers.keys, serverKeysOf);
      await read(answers.sendJoin, (value) => sendJoinSummaryOf(new Map(Object.entries(objectOf(value)) as never)));
    });
    await fc.assert(property, runs(4_000));
  });

  it("take mutated texts in pieces and throw their own errors", async () => {
    const property = fc.asyncProperty(realRoom, byteMutations, cutList, async (room, by, cuts) => {
      const answers = answersOf(room);
      const bytesOf = (answer: JsonObject): AsyncIterable<Uint8Array> =>
        inPieces(mutatedBytes(Buffer.from(stringifyJson(answer)), by), cuts);
      await onlyThrowing(JSON_FAULTS, () => readSmallJson(bytesOf(answers.single)));
      await onlyThrowing(JSON_FAULTS, () => readStateIds(bytesOf(answers.stateIds)));
      await onlyThrowing(JSON_FAULTS, () => eventsIn("events", 20)(bytesOf(answers.list)));
      await onlyThrowing(["MatrixError"], () =>
        parseBody(mutatedBytes(Buffer.from(stringifyJson(answers.transaction)), by)),
      );
    });
    await fc.assert(property, runs(1_000));
  });
});

describe("createJsonSplitter", () => {
  /** What comes out put together again, as far as it came. */
  function split(bytes: Uint8Array, cuts: readonly number[]): JsonValue {
    const lists = new Set(["state", "auth_chain"]);
    const splitter = createJsonSplitter({ lists, maxElementBytes: 1e6, maxMemberBytes: 1e6 });
    const pieces: JsonPiece[] = [];
    let from = 0;
    for (const cut of [...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length]) {
      pieces.push(...splitter.write(bytes.subarray(from, cut)));
      from = cut;
    }
    splitter.end();
    const elements = (list: string): JsonValue[] =>
      pieces.filter(({ kind, key }) => kind === "element" && key === list).map(({ value }) => value);
    const members = pieces.filter(({ kind }) => kind === "member").map(({ key, value }) => [key, value] as const);
    return { ...Object.fromEntries(members), state: elements("state"), auth_chain: elements("auth_chain") };
  }

  it("reads a real answer as JSON.parse does, cut anywhere, also into single bytes", () => {
    const property = fc.property(realRoom, cutList, fc.boolean(), (room, cuts, bytewise) => {
      const text = Buffer.from(stringifyJson(answersOf(room).sendJoin));
      const everywhere = bytewise ? Array.from({ length: text.length }, (_, at) => at) : cuts;
      expect(split(text, everywhere)).toEqual(parseJson(text.toString("utf8")));
    });
    fc.assert(property, runs(150));
  });

  it("reads a mutated answer as JSON.parse does or throws its own errors, wherever it is cut", async () => {
    const property = fc.asyncProperty(realRoom, byteMutations, cutList, async (room, by, cuts) => {
      const bytes = mutatedBytes(Buffer.from(stringifyJson(answersOf(room).sendJoin)), by);
      const pieces = await onlyThrowing(JSON_FAULTS, () => split(bytes, cuts));
      const others = await onlyThrowing(JSON_FAULTS, () => split(bytes, []));
      expect(pieces).toEqual(others);
      if (pieces === undefined) return;
      const whole = parseJson(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
      expect(pieces).toEqual(whole);
    });
    await fc.assert(property, runs(2_000));
  });
});

describe("the keys of a server", () => {
  const notary = { name: "n.example", keys: keySetOf(notaryList(), NOW) };

  function notaryList() {
    const base64 = Buffer.from(NOTARY_KEY.publicKey).toString("base64");
    return {
      server_name: "n.example",
      valid_until_ts: NOW + 1,
      verify_keys: { "ed25519:n": { key: base64 } },
      signatures: {},
    };
  }

  it("are taken unchanged or not at all, from a server as from a notary", async () => {
    const vouched = signJson(keyList(), "n.example", NOTARY_KEY);
    const property = fc.asyncProperty(mutation, async (by) => {
      const list = mutated(vouched, by);
      const client = { serverKeys: async () => serverKeysOf(list), queryKeys: async () => [list, list] };
      const own = await onlyThrowing(["FederationFailure", "LargeJsonError"], () =>
        fetchOwnKeys(client, "a.example", { now: NOW }),
      );
      const wanted = new Map([["a.example", new Set(["ed25519:1" as const])]]);
      const told = await fetchKeysFromNotary(client, notary, wanted, { now: NOW, atTs: NOW });
      for (const keys of [own, told.get("a.example")]) {
        const key = keys?.get("ed25519:1");
        if (key !== undefined) expect(key.publicKey).toEqual(Buffer.from(KEY.publicKey));
      }
    });
    await fc.assert(property, runs(4_000));
  });
});

describe("a host's delegation", () => {
  it("is a server name or none, whatever its file holds", async () => {
    const good = Buffer.from('{"m.server":"matrix.example.org:443"}');
    const answers = new Map<string, WellKnownAnswer>();
    let hosts = 0;
    const wellKnown = createWellKnownLookup(
      async (host) => answers.get(host) ?? expect.fail(),
      () => NOW,
    );
    const header = fc.option(fc.oneof(fc.string(), fc.constantFrom("max-age=1e9", "no-cache", "max-age=-1", "0")), {
      nil: undefined,
    });
    const property = fc.asyncProperty(
      byteMutations,
      header,
      header,
      fc.integer(),
      async (by, cacheControl, expires, status) => {
        const body = Buffer.from(mutatedBytes(good, by)).toString("utf8");
        const answer = { status: status % 2 === 0 ? 200 : status, cacheControl, expires, body };
        expect(wellKnownTtl(answer, NOW)).toBeGreaterThan(0);
        hosts += 1;
        answers.set(`host${hosts}.example`, answer);
        const delegate = await wellKnown(`host${hosts}.example`);
        expect(delegate === undefined || isServerName(delegate)).toBe(true);
        const sources = { wellKnown, srvRecords: async () => [], random: () => 0.5 };
        const [address] = await discoverServer(`host${hosts}.example`, sources);
        expect(address?.port).toBeGreaterThanOrEqual(0);
        expect(isJsonObject(JSON.parse(JSON.stringify(address)))).toBe(true);
      },
    );
    await fc.assert(property, runs(6_000));
  });
});
