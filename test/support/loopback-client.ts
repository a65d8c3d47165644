import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll } from "vitest";
import { createClientApp } from "../../src/client-api/app.ts";
import type { ClientApiContext } from "../../src/client-api/context.ts";
import { isRoomId } from "../../src/matrix/identifiers.ts";
import type { EventId, RoomId, UserId } from "../../src/matrix/identifiers.ts";
import type { RoomVersion } from "../../src/matrix/room-versions.ts";
import { createStreamWaiter } from "../../src/rooms/read/stream-waiter.ts";
import type { Database } from "../../src/storage/database.ts";
import { aRoomsContext } from "./loopback-federation.ts";

// What a server answers is whatever it is: tests look at what they expect of it.
// oxlint-disable-next-line typescript/no-explicit-any
export type Body = any;

export interface ClientAnswer {
  readonly status: number;
  readonly body: Body;
  readonly headers: Headers;
}

export interface CallOptions {
  readonly body?: unknown;
  readonly query?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** A logged-in device of one of our users. */
export interface TestClient {
  readonly userId: UserId;
  readonly deviceId: string;
  readonly accessToken: string;
  call(method: string, path: string, options?: CallOptions): Promise<ClientAnswer>;
  /** The body of an answer that must be a 200. */
  ok(method: string, path: string, options?: CallOptions): Promise<Body>;
  createRoom(version?: RoomVersion, more?: Body): Promise<RoomId>;
  send(roomId: RoomId, text: string): Promise<EventId>;
  sync(query?: Readonly<Record<string, string>>): Promise<Body>;
}

export interface LoopbackClientApi {
  readonly ctx: ClientApiContext;
  readonly url: string;
  /** A request without an access token. */
  call(method: string, path: string, options?: CallOptions): Promise<ClientAnswer>;
  /** A new account with one device. */
  register(name: string): Promise<TestClient>;
  login(name: string, deviceId?: string): Promise<TestClient>;
}

/** `_matrix/client/v3/` stands in front of a path that does not begin with a slash. */
function urlOf(base: string, path: string, query: Readonly<Record<string, string>> = {}): string {
  const place = path.startsWith("/") ? path : `/_matrix/client/v3/${path}`;
  const search = new URLSearchParams(query).toString();
  return `${base}${place}${search === "" ? "" : `?${search}`}`;
}

export const PASSWORD = "correct horse";

/** The client listener on a free port of the loopback interface, with open registration, until the file's tests end. */
export async function startLoopbackClientApi(
  database: Database,
  changes: Partial<ClientApiContext> = {},
): Promise<LoopbackClientApi> {
  const stream = createStreamWaiter(database);
  const ctx: ClientApiContext = {
    ...aRoomsContext(database, changes),
    stream,
    registration: { kind: "open" },
    resyncProgress: async () => undefined,
    ...changes,
  };
  const server = createServer(createClientApp(ctx));
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  afterAll(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => {
      server.close(resolve);
    });
    await stream.close();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  const request = async (method: string, path: string, options: CallOptions, token?: string): Promise<ClientAnswer> => {
    const response = await fetch(urlOf(url, path, options.query), {
      method,
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      ...(options.body === undefined
        ? {}
        : { body: typeof options.body === "string" ? options.body : JSON.stringify(options.body) }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    const text = await response.text();
    return { status: response.status, body: text === "" ? undefined : JSON.parse(text), headers: response.headers };
  };
  const call = async (method: string, path: string, options: CallOptions = {}): Promise<ClientAnswer> =>
    request(method, path, options);
  const clientOf = (session: Body): TestClient => aClient(session, request);
  return {
    ctx,
    url,
    call,
    async register(name) {
      const body = { username: name, password: PASSWORD, auth: { type: "m.login.dummy" } };
      return clientOf(expectOk(await call("POST", "register", { body })));
    },
    async login(name, deviceId) {
      const identifier = { type: "m.id.user", user: name };
      const body = { type: "m.login.password", identifier, password: PASSWORD, device_id: deviceId };
      return clientOf(expectOk(await call("POST", "login", { body })));
    },
  };
}

function expectOk({ status, body }: ClientAnswer): Body {
  if (status !== 200) throw new Error(`${status} ${JSON.stringify(body)}`);
  return body;
}

let transactions = 0;

function aClient(
  session: Body,
  request: (method: string, path: string, options: CallOptions, token?: string) => Promise<ClientAnswer>,
): TestClient {
  const call: TestClient["call"] = async (method, path, options = {}) =>
    request(method, path, options, session.access_token);
  const ok: TestClient["ok"] = async (method, path, options) => expectOk(await call(method, path, options));
  return {
    userId: session.user_id,
    deviceId: session.device_id,
    accessToken: session.access_token,
    call,
    ok,
    async createRoom(version = "11", more = {}) {
      const { room_id: roomId } = await ok("POST", "createRoom", { body: { room_version: version, ...more } });
      if (!isRoomId(roomId)) throw new Error(`${roomId} is no room id`);
      return roomId;
    },
    async send(roomId, text) {
      transactions += 1;
      const path = `rooms/${encodeURIComponent(roomId)}/send/m.room.message/txn${transactions}`;
      return (await ok("PUT", path, { body: { msgtype: "m.text", body: text } })).event_id;
    },
    async sync(query = {}) {
      return ok("GET", "sync", { query });
    },
  };
}
