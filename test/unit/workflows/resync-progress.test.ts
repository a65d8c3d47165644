import { describe, expect, it } from "vitest";
import type { ServerFault } from "../../../workflows/contract.ts";
import { initialState, nextServer, progressOf, reduce, type ResyncState } from "../../../workflows/resync-progress.ts";

const NOW = 1_000_000;

function knowing(...names: readonly string[]): ResyncState {
  return reduce(initialState(), { type: "servers-listed", names });
}

function failing(state: ResyncState, name: string, cause: ServerFault, at = NOW): ResyncState {
  return reduce(state, { type: "server-failed", name, cause, detail: "no", at, jitter: 0 });
}

function waitOf(state: ResyncState, name: string): number {
  const server = state.servers.find((one) => one.name === name);
  return (server?.nextAttempt ?? 0) - NOW;
}

describe("nextServer", () => {
  it("asks in the order of the list, so that the server that we joined by comes first", () => {
    expect(nextServer(knowing("joined-via", "b"), NOW)).toEqual({ kind: "ask", name: "joined-via" });
  });

  it("asks the next server after a pause when one has failed", () => {
    const state = failing(knowing("a", "b"), "a", "unreachable");
    expect(nextServer(state, NOW)).toEqual({ kind: "wait", until: NOW + 200 });
    expect(nextServer(state, NOW + 200)).toEqual({ kind: "ask", name: "b" });
  });

  it("comes back to the server that we joined by before it has been through a long list", () => {
    let state = failing(knowing("joined-via", "b", "c", "d"), "joined-via", "server-error");
    state = failing(state, "b", "not-seen-join", NOW + 200);
    expect(nextServer(state, NOW + 6_000)).toEqual({ kind: "ask", name: "joined-via" });
  });

  it("asks a server that has answered before it asks others, and the preferred one before all", () => {
    let state = reduce(knowing("a", "b", "c"), { type: "server-answered", name: "b" });
    expect(nextServer(state, NOW)).toEqual({ kind: "ask", name: "b" });
    state = reduce(state, { type: "server-preferred", name: "elsewhere" });
    expect(nextServer(state, NOW)).toEqual({ kind: "ask", name: "elsewhere" });
  });

  it("waits for the first server to fall due when all have failed, and for good news when none is known", () => {
    const state = failing(failing(knowing("a", "b"), "a", "forbidden"), "b", "unreachable");
    expect(nextServer(state, NOW + 1_000)).toEqual({ kind: "wait", until: NOW + 5_000 });
    expect(nextServer(initialState(), NOW)).toEqual({ kind: "wait" });
  });
});

describe("reduce", () => {
  it("waits longer with each failure, up to a bound that depends on the cause", () => {
    const waits = (cause: ServerFault): readonly number[] => {
      let state = knowing("a");
      return Array.from({ length: 30 }, () => waitOf((state = failing(state, "a", cause)), "a"));
    };
    expect(waits("unreachable").slice(0, 3)).toEqual([5_000, 10_000, 20_000]);
    expect(waits("unreachable").at(-1)).toBe(600_000);
    expect(waits("not-seen-join").at(-1)).toBe(60_000);
    expect(waits("forbidden").at(-1)).toBe(3_600_000);
  });

  it("honors a longer wait that the server asks for", () => {
    const event = {
      type: "server-failed",
      name: "a",
      cause: "server-error",
      detail: "busy",
      at: NOW,
      jitter: 0,
    } as const;
    expect(waitOf(reduce(knowing("a"), { ...event, retryAfterMs: 90_000 }), "a")).toBe(90_000);
  });

  it("forgets every wait, but no cause, when an operator retries", () => {
    const state = reduce(failing(knowing("a"), "a", "forbidden"), { type: "retry-wished" });
    expect(nextServer(state, NOW)).toEqual({ kind: "ask", name: "a" });
    expect(progressOf(state).servers).toMatchObject([{ name: "a", result: "failed", cause: "forbidden", failures: 1 }]);
  });

  it("keeps what it knows of a server when the list is read again", () => {
    const state = reduce(failing(knowing("a"), "a", "forbidden"), { type: "servers-listed", names: ["a", "b"] });
    expect(state.servers.map((server) => [server.name, server.result])).toEqual([
      ["a", "failed"],
      ["b", "untried"],
    ]);
  });
});

describe("progressOf", () => {
  it("leaves out the servers that were not asked", () => {
    expect(progressOf(knowing("a", "b")).servers).toEqual([]);
  });
});
