import { describe, expect, it } from "vitest";
import type { FederationClient } from "../../../src/federation-client/client.ts";
import { createKeyRing } from "../../../src/federation-client/key-ring.ts";
import type { KeyRing, KeyRingOptions } from "../../../src/federation-client/key-ring.ts";
import type { FederationFailure } from "../../../src/federation-client/failures.ts";
import type { KeyId, ServerName } from "../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import { signingKeyFromSeed, signJson } from "../../../src/matrix/signatures.ts";
import type { SigningKey } from "../../../src/matrix/signatures.ts";
import { storeBackOff } from "../../../src/storage/destinations.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aClient, failureOf, ourKey, startServer } from "./loopback-server.ts";
import type { LoopbackServer } from "./loopback-server.ts";

const database = await openTestDatabase();
const DAY = 24 * 60 * 60_000;
const NOW = 1_800_000_000_000;

let seeds = 10;
const aKey = (keyId: KeyId = "ed25519:1"): SigningKey => signingKeyFromSeed(keyId, Buffer.alloc(32, ++seeds));
const base64 = (key: SigningKey): string => Buffer.from(key.publicKey).toString("base64").replace(/=+$/, "");

/** A server's list of keys, signed by `signer`. */
function aKeyList(name: ServerName, key: SigningKey, changes: JsonObject = {}, signer = key): JsonObject {
  const list = {
    server_name: name,
    valid_until_ts: NOW + DAY,
    verify_keys: { [key.keyId]: { key: base64(key) } },
    old_verify_keys: {},
    ...changes,
  };
  return signJson(list, name, signer);
}

interface KeyWorld {
  /** By host, as it stands in front of the port; undefined: 404. */
  readonly lists: Record<string, JsonObject | undefined>;
  /** What the notary knows, by server name. */
  readonly notary: Record<string, readonly JsonObject[]>;
  readonly notaryKey: SigningKey;
  readonly server: LoopbackServer;
  readonly client: FederationClient;
  readonly nameOf: (host: string) => ServerName;
  readonly clock: { now: number };
  readonly failures: FederationFailure[];
  ring(changes?: Partial<KeyRingOptions>): KeyRing;
}

/** One listener that is all servers of the test, and the notary `notary:PORT` as well. */
async function aKeyWorld(): Promise<KeyWorld> {
  await database.pool.query("DELETE FROM server_keys; DELETE FROM destinations");
  const world = { lists: {} as KeyWorld["lists"], notary: {} as KeyWorld["notary"], notaryKey: aKey("ed25519:n") };
  const server = await startServer((request, response) => {
    const [host = ""] = (request.headers.host ?? "").split(":");
    if (request.url === "/_matrix/key/v2/query") {
      const { server_keys: wanted } = JSON.parse(request.body) as { server_keys: Record<string, unknown> };
      const lists = Object.keys(wanted).flatMap((name) => world.notary[name] ?? []);
      response.end(JSON.stringify({ server_keys: lists }));
      return;
    }
    if (request.url.startsWith("/_matrix/federation/v1/send/")) {
      response.writeHead(503).end("{}");
      return;
    }
    const list = world.lists[host];
    response.writeHead(list === undefined ? 404 : 200);
    response.end(JSON.stringify(list ?? {}));
  });
  const nameOf = (host: string): ServerName => `${host}:${server.port}`;
  world.lists["notary"] = aKeyList(nameOf("notary"), world.notaryKey);
  const clock = { now: NOW };
  const failures: FederationFailure[] = [];
  const client = aClient(database, { now: () => clock.now });
  const defaults = { database, client, serverName: "us.example", signingKey: ourKey, trustedKeyServers: [] };
  const ring = (changes: Partial<KeyRingOptions> = {}): KeyRing =>
    createKeyRing({
      ...defaults,
      now: () => clock.now,
      onFailure: (failure) => failures.push(failure),
      ...changes,
    });
  return { ...world, server, client, nameOf, clock, failures, ring };
}

/** The wanted key ids, by server. */
function wanting(...servers: readonly ServerName[]): Map<ServerName, Set<KeyId>> {
  return new Map(servers.map((server) => [server, new Set<KeyId>(["ed25519:1"])]));
}

function asked(world: KeyWorld, host: string): number {
  return world.server.seen.filter(({ headers }) => headers.host === world.nameOf(host)).length;
}

describe("createKeyRing", () => {
  it("fetches a server's keys from itself, once, whoever wants them", async () => {
    const world = await aKeyWorld();
    const [name, key] = [world.nameOf("a"), aKey()];
    world.lists["a"] = aKeyList(name, key);
    const ring = world.ring();
    const [lookup] = await Promise.all([ring.keysFor(wanting(name)), ring.keysFor(wanting(name))]);
    expect(lookup(name, "ed25519:1")).toEqual({ publicKey: Buffer.from(key.publicKey), validUntilTs: NOW + DAY });
    expect(lookup(name, "ed25519:2")).toBeUndefined();
    await ring.keysFor(wanting(name));
    expect(asked(world, "a")).toBe(1);
  });

  it("remembers keys in the database", async () => {
    const world = await aKeyWorld();
    const [name, key] = [world.nameOf("a"), aKey()];
    world.lists["a"] = aKeyList(name, key);
    await world.ring().keysFor(wanting(name));
    const lookup = await world.ring().keysFor(wanting(name));
    expect(lookup(name, "ed25519:1")).toEqual({ publicKey: Buffer.from(key.publicKey), validUntilTs: NOW + DAY });
    expect(asked(world, "a")).toBe(1);
  });

  it("trusts no key for more than seven days, whatever the server says", async () => {
    const world = await aKeyWorld();
    const name = world.nameOf("a");
    world.lists["a"] = aKeyList(name, aKey(), { valid_until_ts: NOW + 900 * DAY });
    const lookup = await world.ring().keysFor(wanting(name));
    expect(lookup(name, "ed25519:1")?.validUntilTs).toBe(NOW + 7 * DAY);
  });

  it("gives old keys with the time they expired at, and fetches nothing for their sake", async () => {
    const world = await aKeyWorld();
    const [name, old] = [world.nameOf("a"), aKey("ed25519:old")];
    const oldKeys = { "ed25519:old": { key: base64(old), expired_ts: NOW - 100 * DAY } };
    world.lists["a"] = aKeyList(name, aKey(), { old_verify_keys: oldKeys });
    const ring = world.ring();
    const wanted = new Map([[name, new Set<KeyId>(["ed25519:old"])]]);
    const lookup = await ring.keysFor(wanted);
    expect(lookup(name, "ed25519:old")).toMatchObject({ expiredTs: NOW - 100 * DAY });
    await ring.keysFor(wanted);
    expect(asked(world, "a")).toBe(1);
  });

  it("asks again for a key that ran out before the time in question, and keeps the old one if it can't", async () => {
    const world = await aKeyWorld();
    const [name, key] = [world.nameOf("a"), aKey()];
    world.lists["a"] = aKeyList(name, key);
    const ring = world.ring();
    await ring.keysFor(wanting(name));
    world.clock.now += 2 * DAY;
    await ring.keysFor(wanting(name), NOW);
    expect(asked(world, "a")).toBe(1);
    world.lists["a"] = undefined;
    const old = await ring.keysFor(wanting(name));
    expect(old(name, "ed25519:1")?.validUntilTs).toBe(NOW + DAY);
    expect(asked(world, "a")).toBe(2);
    world.lists["a"] = aKeyList(name, key, { valid_until_ts: world.clock.now + DAY });
    world.clock.now += 60_000;
    const fresh = await ring.keysFor(wanting(name));
    expect(fresh(name, "ed25519:1")?.validUntilTs).toBe(NOW + 3 * DAY);
  });

  it("does not ask again soon for a key that could not be had, but does for another one", async () => {
    const world = await aKeyWorld();
    const name = world.nameOf("a");
    const ring = world.ring();
    expect((await ring.keysFor(wanting(name)))(name, "ed25519:1")).toBeUndefined();
    await ring.keysFor(wanting(name));
    expect(asked(world, "a")).toBe(1);
    expect(world.failures).toMatchObject([{ kind: "refused", server: name, status: 404 }]);
    // Nor for ever, where the clock was ahead when it was asked for.
    world.clock.now -= DAY;
    await ring.keysFor(wanting(name));
    expect(asked(world, "a")).toBe(2);
    const key = aKey("ed25519:2");
    world.lists["a"] = aKeyList(name, key);
    const lookup = await ring.keysFor(new Map([[name, new Set<KeyId>(["ed25519:2"])]]));
    expect(lookup(name, "ed25519:2")).toBeDefined();
  });

  it("asks a single server even while it is left alone: it talks to us", async () => {
    const world = await aKeyWorld();
    const [name, key] = [world.nameOf("a"), aKey()];
    await database.pool.query(`INSERT INTO destinations VALUES ($1, to_timestamp(0), to_timestamp($2), 1000, 'away')`, [
      name,
      NOW,
    ]);
    world.lists["a"] = aKeyList(name, key);
    expect((await world.ring().keysFor(wanting(name)))(name, "ed25519:1")).toBeDefined();
  });

  it.each([
    ["signed by another key", (name: string) => aKeyList(name, aKey(), {}, aKey())],
    [
      "signed by an old key only",
      (name: string) => {
        const old = aKey("ed25519:old");
        return aKeyList(name, aKey(), { old_verify_keys: { "ed25519:old": { key: base64(old), expired_ts: 1 } } }, old);
      },
    ],
    ["of another server", () => aKeyList("other.example", aKey())],
    ["altered after it was signed", (name: string) => ({ ...aKeyList(name, aKey()), valid_until_ts: NOW + 2 * DAY })],
    [
      "with a key of the wrong length",
      (name: string) => aKeyList(name, aKey(), { verify_keys: { "ed25519:1": { key: "c2hvcnQ" } } }),
    ],
    ["that is none", () => ({ server_name: 1 })],
  ])("takes no list %s", async (_what, listOf) => {
    const world = await aKeyWorld();
    const name = world.nameOf("a");
    world.lists["a"] = listOf(name);
    expect((await world.ring().keysFor(wanting(name)))(name, "ed25519:1")).toBeUndefined();
    expect(world.failures).toMatchObject([{ kind: "bad-response", server: name }]);
    expect((await database.pool.query("SELECT * FROM server_keys")).rows).toEqual([]);
  });

  it("knows its own key", async () => {
    const world = await aKeyWorld();
    const lookup = await world.ring().keysFor(wanting("us.example"));
    expect(lookup("us.example", "ed25519:us")?.publicKey).toEqual(ourKey.publicKey);
    expect(lookup("us.example", "ed25519:1")).toBeUndefined();
    expect(world.server.seen).toEqual([]);
  });

  it("asks a notary for many servers at once, and the servers themselves for the rest", async () => {
    const world = await aKeyWorld();
    const notary = world.nameOf("notary");
    const names = Array.from({ length: 150 }, (_, n) => world.nameOf(`s${n}`));
    for (const name of names.slice(1)) {
      world.notary[name] = [signJson(aKeyList(name, aKey()), notary, world.notaryKey)];
    }
    world.lists["s0"] = aKeyList(names[0] ?? "", aKey());
    const lookup = await world.ring({ trustedKeyServers: [notary] }).keysFor(wanting(...names));
    expect(names.filter((name) => lookup(name, "ed25519:1") === undefined)).toEqual([]);
    const queries = world.server.seen.filter(({ url }) => url === "/_matrix/key/v2/query");
    expect(queries).toHaveLength(2);
    expect(asked(world, "s0")).toBe(1);
    expect(world.server.seen).toHaveLength(4);
    // Either may come first.
    const criteria = queries.map(({ body }) => JSON.parse(body) as { server_keys: Record<string, unknown> });
    const wanted = Object.assign({}, ...criteria.map((one) => one.server_keys)) as Record<string, unknown>;
    expect(Object.keys(wanted).toSorted()).toEqual(names.toSorted());
    expect(wanted[names[5] ?? ""]).toEqual({ "ed25519:1": { minimum_valid_until_ts: NOW } });
  });

  it.each([
    ["is not signed by the notary", (list: JsonObject) => list],
    [
      "is signed by the notary's name with another key",
      (list: JsonObject, notary: string) => signJson(list, notary, aKey("ed25519:n")),
    ],
    [
      "is signed by the notary but not by its server",
      (list: JsonObject, notary: string, key: SigningKey) => signJson({ ...list, signatures: {} }, notary, key),
    ],
  ])("takes nothing from a notary that %s", async (_what, signed) => {
    const world = await aKeyWorld();
    const [name, other, notary] = [world.nameOf("a"), world.nameOf("b"), world.nameOf("notary")];
    world.notary[name] = [signed(aKeyList(name, aKey()), notary, world.notaryKey)];
    const lookup = await world.ring({ trustedKeyServers: [notary] }).keysFor(wanting(name, other));
    expect(lookup(name, "ed25519:1")).toBeUndefined();
    expect(asked(world, "a")).toBe(1);
  });

  it("takes from a notary nobody's keys but those it was asked for, old lists and new ones", async () => {
    const world = await aKeyWorld();
    const [name, notary, stranger] = [world.nameOf("a"), world.nameOf("notary"), world.nameOf("stranger")];
    const [old, key] = [aKey("ed25519:1"), aKey("ed25519:2")];
    const list = (server: string, by: SigningKey): JsonObject =>
      signJson(aKeyList(server, by), notary, world.notaryKey);
    world.notary[name] = [list(name, old), list(name, key), list(stranger, aKey())];
    const wanted = new Map([[name, new Set<KeyId>(["ed25519:1", "ed25519:2"])]]);
    const lookup = await world.ring({ trustedKeyServers: [notary] }).keysFor(wanted);
    expect(lookup(name, "ed25519:1")).toBeDefined();
    expect(lookup(name, "ed25519:2")).toBeDefined();
    const { rows } = await database.pool.query("SELECT 1 FROM server_keys WHERE server_name = $1", [stranger]);
    expect(rows).toEqual([]);
  });

  it("goes on without a notary that is away", async () => {
    const world = await aKeyWorld();
    const name = world.nameOf("a");
    world.lists["a"] = aKeyList(name, aKey());
    const lookup = await world.ring({ trustedKeyServers: ["dead.example:1"] }).keysFor(wanting(name));
    expect(lookup(name, "ed25519:1")).toBeDefined();
    expect(world.failures).toMatchObject([{ kind: "unreachable", server: "dead.example:1" }]);
  });

  it("brings no expired key back to life", async () => {
    const world = await aKeyWorld();
    const [name, old] = [world.nameOf("a"), aKey("ed25519:1")];
    const oldKeys = { "ed25519:1": { key: base64(old), expired_ts: NOW - DAY } };
    world.lists["a"] = aKeyList(name, aKey("ed25519:2"), { old_verify_keys: oldKeys });
    const notary = world.nameOf("notary");
    const ring = world.ring({ trustedKeyServers: [notary] });
    await ring.keysFor(wanting(name));
    world.notary[name] = [signJson(aKeyList(name, old), notary, world.notaryKey)];
    world.lists["a"] = undefined;
    const lookup = await ring.keysFor(new Map([[name, new Set<KeyId>(["ed25519:1", "ed25519:3"])]]));
    expect(lookup(name, "ed25519:1")).toMatchObject({ expiredTs: NOW - DAY });
  });
});

describe("a notary that is left alone", () => {
  it("is asked all the same where transactions alone have failed, which stay put off", async () => {
    const world = await aKeyWorld();
    const [name, other, notary] = [world.nameOf("a"), world.nameOf("b"), world.nameOf("notary")];
    await failureOf(world.client.sendTransaction(notary, { txnId: "1", pdus: [] }));
    for (const server of [name, other]) {
      world.notary[server] = [signJson(aKeyList(server, aKey()), notary, world.notaryKey)];
    }
    const lookup = await world.ring({ trustedKeyServers: [notary] }).keysFor(wanting(name, other));
    expect([lookup(name, "ed25519:1"), lookup(other, "ed25519:1")]).not.toContain(undefined);
    expect(world.failures).toEqual([]);
    const again = await failureOf(world.client.sendTransaction(notary, { txnId: "1", pdus: [] }));
    expect(again.kind).toBe("backing-off");
    expect((await failureOf(world.client.event(notary, "$a"))).kind).toBe("backing-off");
  });

  it("is asked as soon as it may be: that we did not ask is no answer of its own", async () => {
    const world = await aKeyWorld();
    const [name, other, notary] = [world.nameOf("a"), world.nameOf("b"), world.nameOf("notary")];
    for (const server of [name, other]) {
      world.notary[server] = [signJson(aKeyList(server, aKey()), notary, world.notaryKey)];
    }
    await storeBackOff(database.pool, {
      serverName: notary,
      failingSince: NOW,
      retryAt: NOW + 1000,
      retryIntervalMs: 1000,
      lastError: "no answer in time",
    });
    const ring = world.ring({ trustedKeyServers: [notary] });
    expect((await ring.keysFor(wanting(name, other)))(name, "ed25519:1")).toBeUndefined();
    expect(world.failures[0]).toMatchObject({ kind: "backing-off", server: notary });
    world.clock.now += 1000;
    const lookup = await ring.keysFor(wanting(name, other));
    expect([lookup(name, "ed25519:1"), lookup(other, "ed25519:1")]).not.toContain(undefined);
    // What the servers themselves have said is remembered.
    expect([asked(world, "a"), asked(world, "b")]).toEqual([1, 1]);
  });
});
