import { describe, expect, it } from "vitest";
import {
  createSession,
  createUser,
  deleteDevices,
  devicesOf,
  loadProfile,
  sessionOf,
  setProfile,
  userExists,
  verifyPassword,
} from "../../../src/storage/accounts.ts";
import { insertPartialRoom } from "../../../src/storage/partial-state.ts";
import {
  deleteResyncControl,
  listResyncControls,
  loadResyncControl,
  storeResyncControl,
} from "../../../src/storage/resync-control.ts";
import { deleteRoomAlias, insertAlias, resolveRoomAlias } from "../../../src/storage/room-aliases.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aStoredRoom } from "../../support/stored-room.ts";

const database = await openTestDatabase();

describe("createUser", () => {
  it("makes each user once, and keeps no password as it is", async () => {
    expect(await createUser(database, "@alice:example.org", "correct horse")).toBe(true);
    expect(await createUser(database, "@alice:example.org", "other")).toBe(false);
    expect(await userExists(database, "@alice:example.org")).toBe(true);
    expect(await userExists(database, "@nobody:example.org")).toBe(false);
    expect(await verifyPassword(database, "@alice:example.org", "correct horse")).toBe(true);
    expect(await verifyPassword(database, "@alice:example.org", "correct horsf")).toBe(false);
    expect(await verifyPassword(database, "@nobody:example.org", "correct horse")).toBe(false);
    const stored = await database.pool.query("SELECT password_hash FROM users WHERE user_id = '@alice:example.org'");
    expect(stored.rows).toEqual([{ password_hash: expect.stringMatching(/^\$scrypt\$N=\d+,r=8,p=1\$/) }]);
  });

  it("makes a user whom no password lets in", async () => {
    await createUser(database, "@bot:example.org");
    expect(await verifyPassword(database, "@bot:example.org", "")).toBe(false);
  });
});

describe("setProfile", () => {
  it("changes what is named", async () => {
    await createUser(database, "@carol:example.org");
    await setProfile(database, "@carol:example.org", { displayname: "Carol" });
    await setProfile(database, "@carol:example.org", { avatarUrl: "mxc://example.org/c" });
    const profile = { displayname: "Carol", avatarUrl: "mxc://example.org/c" };
    expect(await loadProfile(database, "@carol:example.org")).toEqual(profile);
    expect(await loadProfile(database, "@nobody:example.org")).toBeUndefined();
  });
});

describe("createSession", () => {
  it("gives a device a token of which only a hash is kept", async () => {
    const session = { userId: "@dave:example.org", deviceId: "PHONE" } as const;
    await createUser(database, session.userId);
    const token = await createSession(database, session, "My phone");
    expect(await sessionOf(database, token)).toEqual(session);
    expect(await sessionOf(database, `${token}x`)).toBeUndefined();
    const dump = await database.pool.query("SELECT * FROM access_tokens");
    expect(JSON.stringify(dump.rows)).not.toContain(token);
    expect(await devicesOf(database, session.userId)).toEqual([{ deviceId: "PHONE", displayName: "My phone" }]);
  });

  it("ends the tokens of a device that logs in again, and of one that is deleted", async () => {
    const session = { userId: "@erin:example.org", deviceId: "LAPTOP" } as const;
    await createUser(database, session.userId);
    const first = await createSession(database, session, "Laptop");
    const second = await createSession(database, session);
    const other = await createSession(database, { ...session, deviceId: "OTHER" });
    expect(await sessionOf(database, first)).toBeUndefined();
    expect(await sessionOf(database, second)).toEqual(session);
    expect(await deleteDevices(database.pool, session.userId, [session.deviceId, "NONE"])).toEqual([session.deviceId]);
    expect(await sessionOf(database, second)).toBeUndefined();
    expect(await sessionOf(database, other)).toMatchObject({ deviceId: "OTHER" });
    expect(await devicesOf(database, session.userId)).toEqual([{ deviceId: "OTHER", displayName: null }]);
  });
});

describe("storeResyncControl", () => {
  it("keeps the last wish until it is fulfilled", async () => {
    const roomId = await aStoredRoom(database);
    await insertPartialRoom(database.pool, { roomId, joinEventId: null, joinedVia: null, deviceListsStreamId: 0n });
    const cancelled = {
      roomId,
      wish: "cancelled",
      by: "@op:example.org",
      at: 1_700_000_000_123,
      why: "too big",
    } as const;
    await storeResyncControl(database, cancelled);
    expect(await loadResyncControl(database, roomId)).toEqual(cancelled);
    const preferred = { ...cancelled, wish: "prefer-server", serverName: "a.org" } as const;
    await storeResyncControl(database, preferred);
    expect(await loadResyncControl(database, roomId)).toEqual(preferred);
    expect(await listResyncControls(database)).toEqual([preferred]);
    await storeResyncControl(database, cancelled);
    expect(await deleteResyncControl(database.pool, roomId)).toBe(true);
    expect(await deleteResyncControl(database.pool, roomId)).toBe(false);
    expect(await loadResyncControl(database, roomId)).toBeUndefined();
  });
});

describe("insertAlias", () => {
  it("gives an alias to one room", async () => {
    const [one, two] = [await aStoredRoom(database), await aStoredRoom(database)];
    const alias = { alias: "#a:example.org", roomId: one, creator: "@c:example.org" } as const;
    expect(await insertAlias(database.pool, alias)).toBe(true);
    expect(await insertAlias(database.pool, { ...alias, roomId: two })).toBe(false);
    expect(await resolveRoomAlias(database, "#a:example.org")).toEqual({
      roomAlias: "#a:example.org",
      roomId: one,
      creator: "@c:example.org",
    });
    expect(await deleteRoomAlias(database, "#a:example.org")).toBe(true);
    expect(await resolveRoomAlias(database, "#a:example.org")).toBeUndefined();
  });
});
