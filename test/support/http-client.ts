import { setTimeout as delay } from "node:timers/promises";
import { randomUUID } from "node:crypto";

/** A client of a running sidecar, over its client-server API. */
export interface HttpClient {
  readonly userId: string;
  readonly accessToken: string;
  get<T>(path: string): Promise<T>;
  post<T>(path: string, body?: object): Promise<T>;
  put<T>(path: string, body: object): Promise<T>;
  say(roomId: string, body: string): Promise<string>;
  /** (type, state key) joined by U+001F, and the event's id; waits for the full state as the API does. */
  fullState(roomId: string): Promise<Map<string, string>>;
  /** Waits until the event can be read. */
  sees(roomId: string, eventId: string, withinMs?: number): Promise<void>;
}

export interface StateEntry {
  readonly type: string;
  readonly state_key: string;
  readonly event_id: string;
}

export function stateMapOf(entries: readonly StateEntry[]): Map<string, string> {
  return new Map(entries.map((entry) => [`${entry.type}\u001f${entry.state_key}`, entry.event_id]));
}

export function httpClient(url: string, userId: string, accessToken: string): HttpClient {
  const call = async <T>(method: string, path: string, body?: object): Promise<T> => {
    const response = await fetch(`${url}/_matrix/client/v3/${path}`, {
      method,
      headers: { authorization: `Bearer ${accessToken}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const answer: unknown = await response.json();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${JSON.stringify(answer)}`);
    return answer as T;
  };
  const inRoom = (roomId: string, rest: string): string => `rooms/${encodeURIComponent(roomId)}/${rest}`;
  return {
    userId,
    accessToken,
    get: (path) => call("GET", path),
    post: (path, body = {}) => call("POST", path, body),
    put: (path, body) => call("PUT", path, body),
    say: async (roomId, body) => {
      const path = inRoom(roomId, `send/m.room.message/${randomUUID()}`);
      return (await call<{ event_id: string }>("PUT", path, { msgtype: "m.text", body })).event_id;
    },
    fullState: async (roomId) => stateMapOf(await call<StateEntry[]>("GET", inRoom(roomId, "state"))),
    sees: async (roomId, eventId, withinMs = 60_000) => {
      const until = Date.now() + withinMs;
      for (;;) {
        try {
          await call("GET", inRoom(roomId, `event/${encodeURIComponent(eventId)}`));
          return;
        } catch (error) {
          if (Date.now() > until) throw error;
          await delay(100);
        }
      }
    },
  };
}
