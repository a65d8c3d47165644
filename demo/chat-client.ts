import { randomUUID } from "node:crypto";

/** What a chat program would do: a few calls of the Matrix client-server API. */
export interface ChatClient {
  readonly userId: string;
  join(roomId: string, via: string): Promise<void>;
  /** @returns the event's id */
  say(roomId: string, body: string): Promise<string>;
  /** Long-polls until the event has arrived. */
  waitFor(roomId: string, eventId: string, timeoutMs: number): Promise<void>;
  /** The whole state: (type, state key) joined by U+001F, and the event's id. */
  fullState(roomId: string): Promise<Map<string, string>>;
}

interface StateEvent {
  readonly type: string;
  readonly state_key: string;
  readonly event_id: string;
}

interface SyncAnswer {
  readonly next_batch: string;
  readonly rooms?: {
    readonly join?: Readonly<Record<string, { readonly timeline?: { readonly events?: readonly StateEvent[] } }>>;
  };
}

const FILTER = JSON.stringify({ room: { state: { lazy_load_members: true }, timeline: { limit: 50 } } });

export async function registerClient(url: string, name: string): Promise<ChatClient> {
  const account = await call<{ user_id: string; access_token: string }>(url, "POST /_matrix/client/v3/register", {
    username: name,
    password: randomUUID(),
    auth: { type: "m.login.dummy" },
  });
  const ask = async <T>(request: string, body?: object): Promise<T> =>
    await call<T>(url, request, body, account.access_token);
  return {
    userId: account.user_id,
    join: async (roomId, via) => {
      await ask(`POST /_matrix/client/v3/join/${encodeURIComponent(roomId)}?via=${encodeURIComponent(via)}`, {});
    },
    say: async (roomId, body) => {
      const path = `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/send/m.room.message/${randomUUID()}`;
      const sent = await ask<{ event_id: string }>(`PUT ${path}`, { msgtype: "m.text", body });
      return sent.event_id;
    },
    waitFor: async (roomId, eventId, timeoutMs) => {
      const until = Date.now() + timeoutMs;
      let since = "";
      while (Date.now() < until) {
        const query = new URLSearchParams({ filter: FILTER, ...(since === "" ? {} : { since, timeout: "5000" }) });
        const answer = await ask<SyncAnswer>(`GET /_matrix/client/v3/sync?${query.toString()}`);
        const events = answer.rooms?.join?.[roomId]?.timeline?.events ?? [];
        if (events.some((event) => event.event_id === eventId)) return;
        since = answer.next_batch;
      }
      throw new Error(`the event ${eventId} did not arrive within ${timeoutMs / 1000} s`);
    },
    fullState: async (roomId) => {
      const events = await ask<readonly StateEvent[]>(
        `GET /_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/state`,
      );
      return new Map(events.map((event) => [`${event.type}\u001f${event.state_key}`, event.event_id]));
    },
  };
}

/** One request, `METHOD /path`; anything but a 2xx is an error that tells what the server said. */
export async function call<T>(url: string, request: string, body?: object, token?: string): Promise<T> {
  const [method = "GET", path = ""] = request.split(" ");
  const response = await fetch(`${url}${path}`, {
    method,
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path.split("?")[0]}: ${response.status} ${text}`);
  return JSON.parse(text) as T;
}
