import { Writable } from "node:stream";
import pino from "pino";
import { beforeAll, describe, expect, it } from "vitest";
import { FederationFailure } from "../../../src/federation-client/failures.ts";
import type { ServerName } from "../../../src/matrix/identifiers.ts";
import { isJsonObject, parseJson, stringifyJson } from "../../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../../src/matrix/json.ts";
import { signingKeyFromSeed, signJson } from "../../../src/matrix/signatures.ts";
import type { RoomsContext } from "../../../src/rooms/context.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { receiveTransaction } from "../../../src/rooms/receive/receive-transaction.ts";
import { fetchMissingState } from "../../../src/rooms/resync/resync-fetch-state.ts";
import { nextResyncStep } from "../../../src/rooms/resync/resync-next-step.ts";
import { identityOf } from "../../resident/identities.ts";
import { rowsNaming } from "../../support/rows-naming.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene();
const logged: string[] = [];
const log = new Writable({
  write(chunk, _encoding, done) {
    logged.push(String(chunk));
    done();
  },
});
const ctx: RoomsContext = { ...sidecar.ctx, logger: pino({ level: "info" }, log) };
const { userId } = sidecar;
const via = [resident.serverName];

const EXPIRED = "server-001.rooms.test";
const REVOKED = "server-002.rooms.test";
const LONG_AGO = 1_000;
const FAR_AWAY = 32_503_680_000_000;

function base64(key: { readonly publicKey: Uint8Array }): string {
  return Buffer.from(key.publicKey).toString("base64").replace(/=+$/, "");
}

/** The server's own list of keys, as it would be after its key ran out or was given up long ago. */
function listOf(server: ServerName): JsonObject {
  const key = identityOf(resident.world.seed, server);
  if (server === EXPIRED) {
    const keys = { verify_keys: { [key.keyId]: { key: base64(key) } }, old_verify_keys: {} };
    return signJson({ server_name: server, valid_until_ts: LONG_AGO, ...keys }, server, key);
  }
  const next = signingKeyFromSeed("ed25519:next", Buffer.alloc(32, 9));
  const old = { [key.keyId]: { key: base64(key), expired_ts: LONG_AGO } };
  const keys = { verify_keys: { [next.keyId]: { key: base64(next) } }, old_verify_keys: old };
  return signJson({ server_name: server, valid_until_ts: Date.now() + 86_400_000, ...keys }, server, next);
}

function retold(list: JsonValue): JsonValue {
  if (!isJsonObject(list) || (list["server_name"] !== EXPIRED && list["server_name"] !== REVOKED)) return list;
  return signJson(listOf(list["server_name"]), resident.serverName, resident.front.key);
}

function withBadKeys(text: string): string {
  const answer = parseJson(text) as { readonly server_keys: readonly JsonValue[] };
  return stringifyJson({ server_keys: answer.server_keys.map(retold) });
}

describe("events signed", () => {
  const room = resident.hostRoom({ label: "keys", servers: 3, members: 12 });
  let told = "";

  beforeAll(async () => {
    resident.trouble({ kind: "rewrite", at: "query_keys", change: withBadKeys });
    const { eventId } = await joinRoom(ctx, { roomId: room.roomId, userId, via });
    const target = { roomId: room.roomId, joinEventId: eventId };
    const step = await nextResyncStep(ctx, target);
    if (step.kind !== "fetch") throw new Error(`the resync is to ${step.kind}`);
    const [missing = eventId] = step.eventIds;
    const fetched = await fetchMissingState(ctx, { ...target, eventId: missing, server: resident.serverName });
    if (fetched.kind !== "incomplete") throw new Error(`the fetch was ${fetched.kind}`);
    told = fetched.reason;
  }, 60_000);

  it.each([
    ["by a key that had run out before", EXPIRED],
    ["by a key that had been given up before", REVOKED],
  ])("%s are dropped, with the cause in the log and in what the workflow is told", async (_how, server) => {
    const { rows } = await database.pool.query<{ sender: string }>("SELECT sender FROM events WHERE room_id = $1", [
      room.roomId,
    ]);
    expect(rows.filter(({ sender }) => sender.endsWith(`:${server}`))).toEqual([]);
    expect(rows.filter(({ sender }) => sender.endsWith(":server-000.rooms.test"))).not.toEqual([]);
    expect(logged.join("")).toContain(`signature of ${server}: `);
    expect(told).toMatch(/did not give \d+ of its events/);
    expect(told).toContain("signature of ");
  });

  it("for a time that no key is trusted for are not believed, with the cause in the log", async () => {
    const sender = resident.front.user;
    const draft = { sender, type: "m.room.message", content: { body: "later" }, originServerTs: FAR_AWAY };
    const { event } = await resident.send(room, draft, { push: false, keep: false });
    const transaction = { origin: resident.serverName, txnId: "future", pdus: [event.pdu], edus: [] };
    await receiveTransaction(ctx, transaction);
    const { rowCount } = await database.pool.query("SELECT FROM events WHERE event_id = $1", [event.eventId]);
    expect(rowCount).toBe(0);
    expect(logged.join("")).toContain(`of ${resident.serverName} was not valid when the event was made`);
  });
});

describe("a notary that lies", () => {
  it.each<[string, (text: string) => string]>([
    ["gives keys that nobody signed", (text) => text.replaceAll(/"[A-Za-z0-9+/]{86}"/g, `"${"A".repeat(86)}"`)],
    ["gives other keys than the servers'", (text) => text.replaceAll(/"key":"[^"]+"/g, `"key":"${"B".repeat(43)}"`)],
    ["gives no keys", () => '{"server_keys":[]}'],
    ["gives no JSON", () => '{"server_keys":[{'],
  ])("and %s lets nobody join by it, and the join says what can't be proved", async (what, change) => {
    await sidecar.restart(database);
    await database.pool.query("DELETE FROM server_keys");
    const room = resident.hostRoom({ label: `lied about: ${what}` });
    resident.clearTrouble();
    resident.trouble({ kind: "rewrite", at: "query_keys", change });
    const join = joinRoom(sidecar.ctx, { roomId: room.roomId, userId, via });
    await expect(join).rejects.toMatchObject({ status: 502, message: expect.stringContaining("can't be proved") });
    await expect(join).rejects.not.toBeInstanceOf(FederationFailure);
    expect(await rowsNaming(database, room.roomId)).toEqual({});
  });
});
