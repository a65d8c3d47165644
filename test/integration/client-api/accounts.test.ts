import { describe, expect, it } from "vitest";
import { startLoopbackClientApi } from "../../support/loopback-client.ts";
import { openTestDatabase } from "../../support/database.ts";

const database = await openTestDatabase();
const api = await startLoopbackClientApi(database);

describe("createClientApp", () => {
  it("names the versions of the specification that it speaks", async () => {
    const { status, body } = await api.call("GET", "/_matrix/client/versions");
    expect(status).toBe(200);
    expect(body.versions).toContain("v1.11");
  });

  it("answers what it does not know as JSON", async () => {
    expect(await api.call("GET", "no/such/thing")).toMatchObject({ status: 404, body: { errcode: "M_UNRECOGNIZED" } });
    expect(await api.call("DELETE", "login")).toMatchObject({ status: 405, body: { errcode: "M_UNRECOGNIZED" } });
  });

  it("answers a bad percent-encoding as JSON", async () => {
    const answer = await api.call("GET", "/_matrix/client/v3/directory/room/%E0%A4%A");
    expect(answer).toMatchObject({ status: 400, body: { errcode: "M_INVALID_PARAM" } });
  });

  it("tells a body that is no JSON from one of the wrong shape", async () => {
    expect(await api.call("POST", "login", { body: "{oops" })).toMatchObject({
      status: 400,
      body: { errcode: "M_NOT_JSON" },
    });
    const wrong = await api.call("POST", "login", { body: { type: 5 } });
    expect(wrong).toMatchObject({ status: 400, body: { errcode: "M_BAD_JSON" } });
    expect(wrong.body.error).toContain("body.type");
  });

  it("lets browsers of any origin in", async () => {
    const { status, headers } = await api.call("OPTIONS", "login");
    expect(status).toBe(204);
    expect(headers.get("access-control-allow-origin")).toBe("*");
    expect(headers.get("access-control-allow-headers")).toContain("Authorization");
  });

  it("answers under r0 what has moved to v3", async () => {
    expect((await api.call("GET", "/_matrix/client/r0/login")).body).toEqual({ flows: [{ type: "m.login.password" }] });
  });

  it("asks for an access token, and knows its own", async () => {
    expect(await api.call("GET", "account/whoami")).toMatchObject({
      status: 401,
      body: { errcode: "M_MISSING_TOKEN" },
    });
    const answer = await api.call("GET", "account/whoami", { query: { access_token: "wrong" } });
    expect(answer).toMatchObject({ status: 401, body: { errcode: "M_UNKNOWN_TOKEN" } });
  });

  it("lists all room versions, and the default", async () => {
    const capable = await api.register("capable");
    const { capabilities } = await capable.ok("GET", "capabilities");
    expect(Object.keys(capabilities["m.room_versions"].available)).toHaveLength(12);
    expect(capabilities["m.room_versions"].default).toBe("11");
  });
});

describe("register", () => {
  it("asks for the dummy stage when registration is open", async () => {
    const answer = await api.call("POST", "register", { body: { username: "anna", password: "secret" } });
    expect(answer.status).toBe(401);
    expect(answer.body.flows).toEqual([{ stages: ["m.login.dummy"] }]);
    expect(answer.body.session).toBeTypeOf("string");
  });

  it("makes an account that whoami and login know", async () => {
    const anna = await api.register("anna");
    expect(anna.userId).toBe("@anna:us.example");
    expect(await anna.ok("GET", "account/whoami")).toMatchObject({ user_id: anna.userId, device_id: anna.deviceId });
    const again = await api.login("anna", "PHONE");
    expect(again.deviceId).toBe("PHONE");
    expect(again.accessToken).not.toBe(anna.accessToken);
  });

  it("refuses a name that is taken, and one that is none", async () => {
    await api.register("berta");
    const auth = { type: "m.login.dummy" };
    const taken = await api.call("POST", "register", { body: { username: "berta", password: "x", auth } });
    expect(taken).toMatchObject({ status: 400, body: { errcode: "M_USER_IN_USE" } });
    const bad = await api.call("POST", "register", { body: { username: "Ber ta", password: "x", auth } });
    expect(bad).toMatchObject({ status: 400, body: { errcode: "M_INVALID_USERNAME" } });
    const free = await api.call("GET", "register/available", { query: { username: "nobody-yet" } });
    expect(free.body).toEqual({ available: true });
  });

  it("is closed unless it is opened", async () => {
    const closed = await startLoopbackClientApi(database, { registration: { kind: "closed" } });
    const answer = await closed.call("POST", "register", { body: { auth: { type: "m.login.dummy" } } });
    expect(answer).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });

  it("takes the secret as a registration token", async () => {
    const guarded = await startLoopbackClientApi(database, { registration: { kind: "secret", secret: "sesame" } });
    const body = { username: "clara", password: "x" };
    const asked = await guarded.call("POST", "register", { body });
    expect(asked.body.flows).toEqual([{ stages: ["m.login.registration_token"] }]);
    const type = "m.login.registration_token";
    const wrong = await guarded.call("POST", "register", { body: { ...body, auth: { type, token: "salami" } } });
    expect(wrong.status).toBe(401);
    const right = await guarded.call("POST", "register", { body: { ...body, auth: { type, token: "sesame" } } });
    expect(right).toMatchObject({ status: 200, body: { user_id: "@clara:us.example" } });
    const validity = "/_matrix/client/v1/register/m.login.registration_token/validity";
    expect((await guarded.call("GET", validity, { query: { token: "sesame" } })).body).toEqual({ valid: true });
  });
});

describe("login", () => {
  it("refuses a wrong password and an unknown user alike", async () => {
    await api.register("dora");
    const wrong = { type: "m.login.password", identifier: { type: "m.id.user", user: "dora" }, password: "wrong" };
    const unknown = { ...wrong, identifier: { type: "m.id.user", user: "nobody" } };
    const answers = await Promise.all([wrong, unknown].map(async (body) => api.call("POST", "login", { body })));
    expect(answers[0]).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    expect(answers[1]?.body).toEqual(answers[0]?.body);
  });

  it("ends with the logout of the device, or of all", async () => {
    const phone = await api.register("emil");
    const laptop = await api.login("emil");
    await phone.ok("POST", "logout");
    expect((await phone.call("GET", "account/whoami")).body.errcode).toBe("M_UNKNOWN_TOKEN");
    expect((await laptop.call("GET", "account/whoami")).status).toBe(200);
    const tablet = await api.login("emil");
    await laptop.ok("POST", "logout/all");
    expect((await tablet.call("GET", "account/whoami")).status).toBe(401);
  });
});

describe("profile", () => {
  it("is changed by its owner, and tells the rooms", async () => {
    const frida = await api.register("frida");
    const gustav = await api.register("gustav");
    const roomId = await frida.createRoom();
    const place = `profile/${encodeURIComponent(frida.userId)}`;
    expect((await gustav.call("PUT", `${place}/displayname`, { body: { displayname: "Not me" } })).status).toBe(403);
    await frida.ok("PUT", `${place}/displayname`, { body: { displayname: "Frida" } });
    await frida.ok("PUT", `${place}/avatar_url`, { body: { avatar_url: "mxc://us.example/face" } });
    const profile = { displayname: "Frida", avatar_url: "mxc://us.example/face" };
    expect((await api.call("GET", place)).body).toEqual(profile);
    expect((await api.call("GET", `${place}/displayname`)).body).toEqual({ displayname: "Frida" });
    const member = `rooms/${encodeURIComponent(roomId)}/state/m.room.member/${encodeURIComponent(frida.userId)}`;
    expect(await frida.ok("GET", member)).toEqual({ ...profile, membership: "join" });
    const missing = await api.call("GET", `profile/${encodeURIComponent("@nobody:us.example")}`);
    expect(missing).toMatchObject({ status: 404, body: { errcode: "M_NOT_FOUND" } });
  });
});

describe("filter", () => {
  it("comes back as it was stored", async () => {
    const hugo = await api.register("hugo");
    const place = `user/${encodeURIComponent(hugo.userId)}/filter`;
    const filter = { room: { timeline: { limit: 5 }, state: { lazy_load_members: true } }, event_fields: ["type"] };
    const { filter_id: id } = await hugo.ok("POST", place, { body: filter });
    expect(await hugo.ok("GET", `${place}/${id}`)).toEqual(filter);
    expect((await hugo.call("GET", `${place}/nonsense`)).status).toBe(404);
    const wrong = await hugo.call("POST", place, { body: { room: { timeline: { limit: "5" } } } });
    expect(wrong).toMatchObject({ status: 400, body: { errcode: "M_BAD_JSON" } });
    expect(wrong.body.error).toContain("body.room.timeline.limit");
  });
});
