import { describe, expect, it } from "vitest";
import { paths } from "../../../src/federation-api/endpoints.ts";
import type { RoomAlias, RoomId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { partialRoom } from "../../../src/storage/partial-state.ts";
import { callServer } from "../../resident/outbound.ts";
import { openClientScene } from "../../support/client-scene.ts";
import type { TestClient } from "../../support/loopback-client.ts";

const scene = await openClientScene({ fronts: 2 });
const { resident, sidecar, database, enter, aUser } = scene;
const [front, other] = resident.fronts as [(typeof resident.fronts)[0], (typeof resident.fronts)[0]];
const key = encodeURIComponent;

let aliases = 0;
function newAlias(): RoomAlias {
  aliases += 1;
  return `#room-${aliases}:${sidecar.serverName}`;
}

const directory = (alias: string) => `directory/room/${key(alias)}`;

async function name(client: TestClient, alias: RoomAlias, roomId: RoomId): Promise<void> {
  await client.ok("PUT", directory(alias), { body: { room_id: roomId } });
}

/** The directory of the resident's first server says for now that every alias of its own is one of this room. */
function directoryNames(roomId: RoomId, servers: readonly string[]): () => void {
  return resident.trouble({ kind: "lie", lie: "answer", changes: { room_id: roomId, servers }, at: "directory" });
}

describe("an alias of a partial room", () => {
  it("is made, listed, resolved for clients and servers, and removed, all during the resync", async () => {
    const { room, client, at } = await enter();
    const [first, second] = [newAlias(), newAlias()];
    await name(client, first, room.roomId);
    await name(client, second, room.roomId);
    expect((await client.ok("GET", at("aliases"))).aliases).toEqual([first, second].toSorted());

    const found = await client.ok("GET", directory(first));
    expect(found.room_id).toBe(room.roomId);
    expect(found.servers).toEqual(expect.arrayContaining([sidecar.serverName, front.serverName, other.serverName]));
    const call = { origin: front.serverName, destination: sidecar.serverName, method: "GET" } as const;
    const asked = await callServer(resident.world, { ...call, uri: paths.queryDirectory(first) });
    expect(asked).toMatchObject({ status: 200, body: { room_id: room.roomId } });

    await client.ok("DELETE", directory(first));
    expect((await client.ok("GET", at("aliases"))).aliases).toEqual([second]);
    expect((await client.call("GET", directory(first))).status).toBe(404);
    const gone = await callServer(resident.world, { ...call, uri: paths.queryDirectory(first) });
    expect(gone).toMatchObject({ status: 404, body: { errcode: "M_NOT_FOUND" } });
    expect(await partialRoom(database.pool, room.roomId)).toBeDefined();
  });

  it("outlives the resync", async () => {
    const { room, client, at, complete } = await enter();
    const alias = newAlias();
    await name(client, alias, room.roomId);
    await complete();
    expect((await client.ok("GET", at("aliases"))).aliases).toEqual([alias]);
    expect((await client.ok("GET", directory(alias))).room_id).toBe(room.roomId);
  });

  it("is refused where it is taken, of another server, of no name, or of a room that the user is not in", async () => {
    const { room, client } = await enter();
    const alias = newAlias();
    await name(client, alias, room.roomId);
    const put = async (who: TestClient, what: string) =>
      who.call("PUT", directory(what), { body: { room_id: room.roomId } });
    expect(await put(client, alias)).toMatchObject({ status: 409 });
    const invalid = { status: 400, body: { errcode: "M_INVALID_PARAM" } };
    expect(await put(client, `#ours:${front.serverName}`)).toMatchObject(invalid);
    expect(await put(client, `#:${sidecar.serverName}`)).toMatchObject(invalid);
    expect(await put(client, `#a b:${sidecar.serverName}`)).toMatchObject(invalid);
    const forbidden = { status: 403, body: { errcode: "M_FORBIDDEN" } };
    expect(await put(await aUser(), newAlias())).toMatchObject(forbidden);
  });

  it("is deleted by who made it or may set the main alias, and by nobody else", async () => {
    const { room, client } = await enter({ power: 50 });
    const [member, stranger] = [await aUser(), await aUser()];
    await scene.joinVia(member, room);
    const [one, two] = [newAlias(), newAlias()];
    await name(client, one, room.roomId);
    await name(member, two, room.roomId);
    for (const who of [member, stranger]) {
      const answer = await who.call("DELETE", directory(one));
      expect(answer).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    }
    await client.ok("DELETE", directory(two));
    await client.ok("DELETE", directory(one));
    expect(await client.call("DELETE", directory(one))).toMatchObject({ status: 404 });
  });

  it("is listed to members only, unless the world may read the room", async () => {
    const { room, client, at } = await enter({ power: 100 });
    const stranger = await aUser();
    const forbidden = { status: 403, body: { errcode: "M_FORBIDDEN" } };
    expect(await stranger.call("GET", at("aliases"))).toMatchObject(forbidden);
    const body = { history_visibility: "world_readable" };
    await client.ok("PUT", at("state/m.room.history_visibility"), { body });
    const alias = newAlias();
    await name(client, alias, room.roomId);
    expect(await stranger.ok("GET", at("aliases"))).toEqual({ aliases: [alias] });
  });
});

describe("a canonical alias of a partial room", () => {
  const CANONICAL = "state/m.room.canonical_alias";

  it("is set where it names the room, by our directory or another server's, and taken in by the resident", async () => {
    const { room, client, at } = await enter({ power: 50 });
    const alias = newAlias();
    await name(client, alias, room.roomId);
    const theirs = `#room:${front.serverName}`;
    const end = directoryNames(room.roomId, [front.serverName]);
    const body = { alias, alt_aliases: [theirs] };
    const { event_id: eventId } = await client.ok("PUT", at(CANONICAL), { body });
    end();
    const canonical = stateKeyOf("m.room.canonical_alias", "");
    await expect.poll(() => resident.fullState(room).get(canonical)).toBe(eventId);
    const gone = resident.trouble({ kind: "refuse", status: 404, errcode: "M_NOT_FOUND", at: "directory" });
    // What stood there before is asked of nobody again.
    await client.ok("PUT", at(CANONICAL), { body: { alt_aliases: [theirs] } });
    gone();
  });

  it.each([
    ["names another room", "elsewhere", "M_BAD_ALIAS"],
    ["is not known", "nowhere", "M_BAD_ALIAS"],
    ["is of a server that does not answer", "#room:localhost:1", "M_BAD_ALIAS"],
    ["is no alias", "room", "M_INVALID_PARAM"],
  ])("is refused where one %s", async (_what, which, errcode) => {
    const { client, at } = await enter({ power: 50 });
    const elsewhere = newAlias();
    await name(client, elsewhere, await client.createRoom());
    const alias = which === "elsewhere" ? elsewhere : which === "nowhere" ? newAlias() : which;
    for (const body of [{ alias }, { alt_aliases: [alias] }]) {
      const answer = await client.call("PUT", at(CANONICAL), { body });
      expect(answer).toMatchObject({ status: 400, body: { errcode } });
    }
    expect((await client.call("PUT", at(CANONICAL), { body: { alt_aliases: alias } })).status).toBe(400);
    expect((await client.call("GET", at(CANONICAL))).status).toBe(404);
  });

  it("no longer names an alias that is removed, where its remover has the power to say so", async () => {
    const { room, client, at } = await enter({ power: 50 });
    const member = await aUser();
    await scene.joinVia(member, room);
    const [main, kept, unsaid] = [newAlias(), newAlias(), newAlias()];
    for (const alias of [main, kept]) await name(client, alias, room.roomId);
    await name(member, unsaid, room.roomId);
    await client.ok("PUT", at(CANONICAL), { body: { alias: main, alt_aliases: [kept, unsaid] } });
    await client.ok("DELETE", directory(main));
    expect(await client.ok("GET", at(CANONICAL))).toEqual({ alt_aliases: [kept, unsaid] });
    await member.ok("DELETE", directory(unsaid));
    expect(await client.ok("GET", at(CANONICAL))).toEqual({ alt_aliases: [kept, unsaid] });
    expect((await client.call("GET", directory(unsaid))).status).toBe(404);
  });
});

describe("a join by alias", () => {
  it("goes to the servers that the directory names, one after the other", async () => {
    const room = scene.hostRoom({ version: "12" });
    const client = await aUser();
    const end = directoryNames(room.roomId, [other.serverName]);
    const refuse = resident.trouble({ kind: "refuse", status: 404, errcode: "M_NOT_FOUND", at: "make_join" });
    const { room_id: roomId } = await client.ok("POST", `join/${key(`#room:${front.serverName}`)}`);
    refuse();
    end();
    expect(roomId).toBe(room.roomId);
    expect((await partialRoom(database.pool, room.roomId))?.joinedVia).toBe(other.serverName);
  });

  it("of our own directory leads a second user into a partial room, by a handshake", async () => {
    const { room, client } = await enter();
    const alias = newAlias();
    await name(client, alias, room.roomId);
    const [second, banned] = [await aUser(), await aUser()];
    await resident.ban(room, banned.userId, { to: [] });
    expect(await second.ok("POST", `join/${key(alias)}`)).toEqual({ room_id: room.roomId });
    expect(resident.membership(room, second.userId)).toBe("join");
    const refused = await banned.call("POST", `join/${key(alias)}`);
    expect(refused).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });

  it("says that an alias is unknown, and which server did not answer", async () => {
    const client = await aUser();
    const unknown = await client.call("POST", `join/${key(`#nobody:${front.serverName}`)}`);
    expect(unknown).toMatchObject({ status: 404, body: { errcode: "M_NOT_FOUND" } });
    const silent = await client.call("POST", `join/${key("#room:localhost:1")}`);
    expect(silent.status).toBe(502);
    expect(silent.body.error).toContain("localhost:1");
  });
});
