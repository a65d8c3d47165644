import { beforeEach, describe, expect, it } from "vitest";
import { createAppserviceClient } from "../../../src/appservice-client/client.ts";
import { makeSenders } from "../../../src/rooms/appservices/act-as.ts";
import { pingAppservice } from "../../../src/rooms/appservices/ping-appservice.ts";
import {
  acknowledge,
  appservicesOf,
  aService,
  namespace,
  refuse,
  startServiceReceiver,
} from "../../support/application-service.ts";
import { rulesFor } from "../../support/a-pdu.ts";
import { openTestDatabase } from "../../support/database.ts";
import { startLoopbackFederation } from "../../support/loopback-federation.ts";
import {
  startLoopbackClientApi,
  type Body,
  type CallOptions,
  type ClientAnswer,
} from "../../support/loopback-client.ts";

const database = await openTestDatabase();
const receiver = await startServiceReceiver();
const bridge = aService({
  url: receiver.url,
  namespaces: {
    users: [namespace("@_bridge_.*", true), namespace("@shared_.*")],
    aliases: [namespace("#_portal_.*", true), namespace("#shared_.*")],
    rooms: [],
  },
});
const other = aService({ namespaces: { users: [namespace("@_other_.*", true)], aliases: [], rooms: [] } });
const api = await startLoopbackClientApi(database, { appservices: appservicesOf(bridge, other) });
await makeSenders(api.ctx);
const alice = await api.register("alice");

const TOKEN = "m.login.application_service";

async function as(
  service: typeof bridge,
  method: string,
  path: string,
  options: CallOptions = {},
): Promise<ClientAnswer> {
  const query = { access_token: service.asToken, ...options.query };
  return api.call(method, path, { ...options, query });
}

async function register(username: string, more: Body = {}, service = bridge): Promise<ClientAnswer> {
  return as(service, "POST", "register", { body: { type: TOKEN, username, ...more } });
}

let users = 0;

async function aGhost(): Promise<string> {
  users += 1;
  const { status, body } = await register(`_bridge_user_${users}`, { inhibit_login: true });
  expect(status).toBe(200);
  return body.user_id;
}

beforeEach(() => {
  (receiver.seen as unknown[]).length = 0;
  receiver.handler = acknowledge;
});

describe("an application service's token", () => {
  it("stands for the service's own user", async () => {
    const { status, body } = await as(bridge, "GET", "account/whoami");
    expect({ status, body }).toEqual({
      status: 200,
      body: { user_id: `@${bridge.senderLocalpart}:us.example`, is_guest: false },
    });
  });

  it("stands for any registered user of its namespace that the request names", async () => {
    const ghost = await aGhost();
    const { body } = await as(bridge, "GET", "account/whoami", { query: { user_id: ghost } });
    expect(body.user_id).toBe(ghost);
    const created = await as(bridge, "POST", "createRoom", { query: { user_id: ghost }, body: {} });
    expect(created.status).toBe(200);
    const rooms = await as(bridge, "GET", "joined_rooms", { query: { user_id: ghost } });
    expect(rooms.body.joined_rooms).toEqual([created.body.room_id]);
  });

  it("stands for a device of such a user, and for none that they do not have", async () => {
    const ghost = await aGhost();
    const identifier = { type: "m.id.user", user: ghost };
    const login = await as(bridge, "POST", "login", { body: { type: TOKEN, identifier, device_id: "WEAVER" } });
    expect(login.body).toMatchObject({ user_id: ghost, device_id: "WEAVER" });
    const known = await as(bridge, "GET", "account/whoami", { query: { user_id: ghost, device_id: "WEAVER" } });
    expect(known.body).toMatchObject({ user_id: ghost, device_id: "WEAVER" });
    const unknown = await as(bridge, "GET", "account/whoami", { query: { user_id: ghost, device_id: "LOOM" } });
    expect(unknown).toMatchObject({ status: 400, body: { errcode: "M_UNKNOWN_DEVICE" } });
  });

  it.each([
    ["a user of nobody's", "@alice:us.example"],
    ["a user of another service", "@_other_user:us.example"],
    ["a user whose name alone fits, of another server", "@_bridge_user:elsewhere.example"],
    ["a user that it has not registered", "@_bridge_nobody:us.example"],
  ])("does not stand for %s", async (_who, user) => {
    await register("_other_user", {}, other);
    const answer = await as(bridge, "GET", "account/whoami", { query: { user_id: user } });
    expect(answer).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });

  it("is refused where it is not quite right", async () => {
    const answer = await as({ ...bridge, asToken: `${bridge.asToken}x` }, "GET", "account/whoami");
    expect(answer).toMatchObject({ status: 401, body: { errcode: "M_UNKNOWN_TOKEN" } });
  });

  it("lets a user of its namespace send", async () => {
    const ghost = await aGhost();
    const roomId = await alice.createRoom("11", { preset: "public_chat" });
    const path = `rooms/${encodeURIComponent(roomId)}`;
    expect((await as(bridge, "POST", `${path}/join`, { query: { user_id: ghost } })).status).toBe(200);
    const sent = await as(bridge, "PUT", `${path}/send/m.room.message/1`, {
      query: { user_id: ghost },
      body: { msgtype: "m.text", body: "from afar" },
    });
    const { sender, content } = await alice.ok("GET", `${path}/event/${encodeURIComponent(sent.body.event_id)}`);
    expect({ sender, content }).toEqual({ sender: ghost, content: { msgtype: "m.text", body: "from afar" } });
  });
});

describe("registration by an application service", () => {
  it("makes a user of its namespace, who is logged in unless that is not wanted", async () => {
    const { body } = await register("_bridge_weaver");
    expect(body).toMatchObject({ user_id: "@_bridge_weaver:us.example", access_token: expect.any(String) });
    const quiet = await register("_bridge_quiet", { inhibit_login: true });
    expect(quiet.body).toEqual({ user_id: "@_bridge_quiet:us.example" });
    expect((await register("_bridge_weaver")).body.errcode).toBe("M_USER_IN_USE");
  });

  it("makes no user outside of its namespace", async () => {
    expect(await register("bob")).toMatchObject({ status: 400, body: { errcode: "M_EXCLUSIVE" } });
    expect(await register("_other_one")).toMatchObject({ status: 400, body: { errcode: "M_EXCLUSIVE" } });
  });

  it("needs a token of a service", async () => {
    const body = { type: TOKEN, username: "_bridge_thief" };
    expect(await api.call("POST", "register", { body })).toMatchObject({
      status: 401,
      body: { errcode: "M_MISSING_TOKEN" },
    });
    const answer = await alice.call("POST", "register", { body });
    expect(answer).toMatchObject({ status: 401, body: { errcode: "M_UNKNOWN_TOKEN" } });
  });

  it.each(["_bridge_person", bridge.senderLocalpart])("keeps people from the exclusive name %s", async (username) => {
    const body = { username, password: "correct horse", auth: { type: "m.login.dummy" } };
    expect(await api.call("POST", "register", { body })).toMatchObject({
      status: 400,
      body: { errcode: "M_EXCLUSIVE" },
    });
    const available = await api.call("GET", "register/available", { query: { username } });
    expect(available).toMatchObject({ status: 400, body: { errcode: "M_EXCLUSIVE" } });
  });

  it("leaves names of a namespace that is not exclusive to anyone", async () => {
    expect((await api.register("shared_person")).userId).toBe("@shared_person:us.example");
  });
});

describe("login by an application service", () => {
  it("is offered, and opens a session of a user of its namespace", async () => {
    const { body: offered } = await api.call("GET", "login");
    expect(offered.flows).toContainEqual({ type: TOKEN });
    const ghost = await aGhost();
    const identifier = { type: "m.id.user", user: ghost.slice(1, ghost.indexOf(":")) };
    const { body } = await as(bridge, "POST", "login", { body: { type: TOKEN, identifier } });
    const whoami = await api.call("GET", "account/whoami", { query: { access_token: body.access_token } });
    expect(whoami.body).toMatchObject({ user_id: ghost, device_id: body.device_id });
  });

  it("is refused for other users, and without a token", async () => {
    const body = { type: TOKEN, identifier: { type: "m.id.user", user: "alice" } };
    expect(await as(bridge, "POST", "login", { body })).toMatchObject({
      status: 403,
      body: { errcode: "M_EXCLUSIVE" },
    });
    expect(await api.call("POST", "login", { body })).toMatchObject({
      status: 401,
      body: { errcode: "M_MISSING_TOKEN" },
    });
  });
});

describe("an exclusive namespace of aliases", () => {
  it("is the service's alone", async () => {
    const roomId = await alice.createRoom();
    const path = `directory/room/${encodeURIComponent("#_portal_1:us.example")}`;
    const body = { room_id: roomId };
    expect(await alice.call("PUT", path, { body })).toMatchObject({ status: 400, body: { errcode: "M_EXCLUSIVE" } });
    const named = await alice.call("POST", "createRoom", { body: { room_alias_name: "_portal_2" } });
    expect(named).toMatchObject({ status: 400, body: { errcode: "M_EXCLUSIVE" } });
    const room = await as(bridge, "POST", "createRoom", { body: { room_alias_name: "_portal_1" } });
    expect(room.status).toBe(200);
    expect(await alice.call("DELETE", path)).toMatchObject({ status: 400, body: { errcode: "M_EXCLUSIVE" } });
    expect((await as(bridge, "DELETE", path)).status).toBe(200);
  });

  it("is all that the service may make aliases in, beside those that are not exclusive", async () => {
    const taken = await as(bridge, "POST", "createRoom", { body: { room_alias_name: "elsewhere" } });
    expect(taken).toMatchObject({ status: 400, body: { errcode: "M_EXCLUSIVE" } });
    expect((await as(bridge, "POST", "createRoom", { body: { room_alias_name: "shared_1" } })).status).toBe(200);
    expect((await alice.call("POST", "createRoom", { body: { room_alias_name: "shared_2" } })).status).toBe(200);
  });
});

describe("POST /appservice/{id}/ping", () => {
  const path = `/_matrix/client/v1/appservice/${encodeURIComponent(bridge.id)}/ping`;
  const body = { transaction_id: "meow" };

  it("calls the service back, and says how long that took", async () => {
    const answer = await as(bridge, "POST", path, { body });
    expect(answer).toMatchObject({ status: 200, body: { duration_ms: expect.any(Number) } });
    expect(receiver.seen).toMatchObject([
      { method: "POST", path: "/_matrix/app/v1/ping", authorization: `Bearer ${bridge.hsToken}`, body },
    ]);
  });

  it("tells what the service answered instead", async () => {
    receiver.handler = refuse(403, { errcode: "M_FORBIDDEN" });
    expect(await as(bridge, "POST", path, { body })).toMatchObject({
      status: 502,
      body: { errcode: "M_BAD_STATUS", status: 403, body: '{"errcode":"M_FORBIDDEN"}' },
    });
    receiver.handler = (_request, response) => void response.destroy();
    expect(await as(bridge, "POST", path, { body })).toMatchObject({
      status: 502,
      body: { errcode: "M_CONNECTION_FAILED" },
    });
  });

  it("tells that the service gives no answer", async () => {
    receiver.handler = () => undefined;
    const client = createAppserviceClient({ questionTimeoutMs: 100 });
    const ping = pingAppservice(api.ctx, { services: [], client }, { service: bridge, transactionId: "meow" });
    await expect(ping).rejects.toMatchObject({ status: 504, errcode: "M_CONNECTION_TIMEOUT" });
    await client.close();
  });

  it("is for the service itself, if it has an address", async () => {
    expect(await alice.call("POST", path, { body })).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    expect(await as(other, "POST", path, { body })).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    const own = `/_matrix/client/v1/appservice/${encodeURIComponent(other.id)}/ping`;
    expect(await as(other, "POST", own, { body })).toMatchObject({ status: 400, body: { errcode: "M_URL_NOT_SET" } });
  });
});

describe("a user or an alias that nobody has made", () => {
  it("is asked for when the user is invited, who may be made just then", async () => {
    receiver.handler = async (request, response) => {
      expect(request.path).toBe(`/_matrix/app/v1/users/${encodeURIComponent("@_bridge_new:us.example")}`);
      await register("_bridge_new", { inhibit_login: true });
      await as(bridge, "PUT", `profile/${encodeURIComponent("@_bridge_new:us.example")}/displayname`, {
        query: { user_id: "@_bridge_new:us.example" },
        body: { displayname: "The New One" },
      });
      await acknowledge(request, response);
    };
    const roomId = await alice.createRoom();
    const path = `rooms/${encodeURIComponent(roomId)}`;
    await alice.ok("POST", `${path}/invite`, { body: { user_id: "@_bridge_new:us.example" } });
    const member = await alice.ok(
      "GET",
      `${path}/state/m.room.member/${encodeURIComponent("@_bridge_new:us.example")}`,
    );
    expect(member).toMatchObject({ membership: "invite", displayname: "The New One" });
    expect(receiver.seen.length).toBe(1);
  });

  it("is asked for when the user's profile is looked up", async () => {
    const path = `profile/${encodeURIComponent("@_bridge_shy:us.example")}`;
    receiver.handler = refuse(404);
    expect((await api.call("GET", path)).status).toBe(404);
    receiver.handler = async (request, response) => {
      await register("_bridge_shy", { inhibit_login: true });
      await acknowledge(request, response);
    };
    expect((await api.call("GET", path)).status).toBe(200);
    expect(receiver.seen.map(({ method, authorization }) => ({ method, authorization }))).toEqual(
      [1, 2].map(() => ({ method: "GET", authorization: `Bearer ${bridge.hsToken}` })),
    );
    expect((await api.call("GET", path)).status).toBe(200);
    expect(receiver.seen.length).toBe(2);
  });

  it("is asked for when the alias is joined", async () => {
    const alias = "#_portal_made:us.example";
    receiver.handler = async (request, response) => {
      expect(request.path).toBe(`/_matrix/app/v1/rooms/${encodeURIComponent(alias)}`);
      await as(bridge, "POST", "createRoom", { body: { room_alias_name: "_portal_made", preset: "public_chat" } });
      await acknowledge(request, response);
    };
    const { room_id: roomId } = await alice.ok("POST", `join/${encodeURIComponent(alias)}`);
    expect((await alice.ok("GET", "joined_rooms")).joined_rooms).toContain(roomId);
  });

  it("is asked for when another server looks it up, or invites the user", async () => {
    const federation = await startLoopbackFederation(api.ctx);
    const them = await federation.remote("them.example");
    receiver.handler = async (request, response) => {
      if (request.path.includes("/users/")) await register("_bridge_far", { inhibit_login: true });
      else await as(bridge, "POST", "createRoom", { body: { room_alias_name: "_portal_far" } });
      await acknowledge(request, response);
    };
    const alias = encodeURIComponent("#_portal_far:us.example");
    const directory = await them.ask("GET", `/_matrix/federation/v1/query/directory?room_alias=${alias}`);
    expect(directory.status).toBe(200);
    const user = encodeURIComponent("@_bridge_far:us.example");
    expect((await them.ask("GET", `/_matrix/federation/v1/query/profile?user_id=${user}`)).status).toBe(200);
    expect(receiver.seen.map(({ path }) => path)).toEqual([
      `/_matrix/app/v1/rooms/${alias}`,
      `/_matrix/app/v1/users/${user}`,
    ]);
    receiver.handler = refuse(404);
    const template = {
      type: "m.room.member",
      room_id: "!theirs:them.example",
      sender: "@bob:them.example",
      state_key: "@_bridge_invited:us.example",
      content: { membership: "invite" },
      prev_events: [],
      auth_events: [],
      depth: 5,
    };
    const event = them.complete(template, rulesFor("11"));
    const path = `/_matrix/federation/v2/invite/${event.roomId}/${encodeURIComponent(event.eventId)}`;
    await them.ask("PUT", path, { room_version: "11", event: event.pdu, invite_room_state: [] });
    expect(receiver.seen.at(-1)?.path).toBe(
      `/_matrix/app/v1/users/${encodeURIComponent("@_bridge_invited:us.example")}`,
    );
  });

  it("is unknown if the service does not answer, and nobody else is asked about", async () => {
    receiver.handler = refuse(500);
    expect((await api.call("GET", `profile/${encodeURIComponent("@_bridge_lost:us.example")}`)).status).toBe(404);
    expect(receiver.seen.length).toBe(1);
    expect((await api.call("GET", `profile/${encodeURIComponent("@nobody:us.example")}`)).status).toBe(404);
    expect((await api.call("GET", `directory/room/${encodeURIComponent("#nowhere:us.example")}`)).status).toBe(404);
    expect(receiver.seen.length).toBe(1);
  });
});
