import { beforeAll, describe, expect, it } from "vitest";
import { createUser, setProfile } from "../../../src/storage/accounts.ts";
import { ALICE, aRoom } from "../../support/a-room.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aRoomsContext, startLoopbackFederation } from "../../support/loopback-federation.ts";
import type { RemoteServer } from "../../support/loopback-federation.ts";

const ctx = aRoomsContext(await openTestDatabase());
let them: RemoteServer;

beforeAll(async () => {
  them = await (await startLoopbackFederation(ctx)).remote("them.example");
  await createUser(ctx.database, ALICE);
});

const NOT_FOUND = { status: 404, body: { errcode: "M_NOT_FOUND" } };

describe("query/profile", () => {
  const ask = (query: string) => them.ask("GET", `/_matrix/federation/v1/query/profile?${query}`);

  it("tells what is set, all of it or one field", async () => {
    expect((await ask(`user_id=${ALICE}`)).body).toEqual({});
    await setProfile(ctx.database, ALICE, { displayname: "Alice", avatarUrl: "mxc://us.example/a" });
    expect((await ask(`user_id=${ALICE}`)).body).toEqual({ displayname: "Alice", avatar_url: "mxc://us.example/a" });
    expect((await ask(`user_id=${ALICE}&field=displayname`)).body).toEqual({ displayname: "Alice" });
    expect((await ask(`user_id=${ALICE}&field=avatar_url`)).body).toEqual({ avatar_url: "mxc://us.example/a" });
  });

  it("knows our users alone", async () => {
    expect(await ask("user_id=@nobody:us.example")).toMatchObject(NOT_FOUND);
    expect(await ask("user_id=@alice:them.example")).toMatchObject(NOT_FOUND);
    expect(await ask("field=displayname")).toMatchObject({ status: 400, body: { errcode: "M_MISSING_PARAM" } });
  });
});

describe("query/directory", () => {
  const ask = (alias: string) =>
    them.ask("GET", `/_matrix/federation/v1/query/directory?room_alias=${encodeURIComponent(alias)}`);

  it("finds the room behind an alias of ours", async () => {
    const roomId = await aRoom(ctx, { aliasName: "lobby" });
    expect((await ask("#lobby:us.example")).body).toEqual({ room_id: roomId, servers: ["us.example"] });
  });

  it("knows no others", async () => {
    expect(await ask("#none:us.example")).toMatchObject(NOT_FOUND);
    expect(await ask("#lobby:them.example")).toMatchObject(NOT_FOUND);
  });
});

describe("user/devices", () => {
  it("lists no device that one could encrypt to", async () => {
    const answer = await them.ask("GET", `/_matrix/federation/v1/user/devices/${ALICE}`);
    expect(answer.body).toEqual({ user_id: ALICE, stream_id: 0, devices: [] });
    expect(await them.ask("GET", "/_matrix/federation/v1/user/devices/@nobody:us.example")).toMatchObject(NOT_FOUND);
  });
});
