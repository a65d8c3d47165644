import { describe, expect, it } from "vitest";
import { EVERY_STATE, type ServerFault } from "../../../workflows/contract.ts";
import {
  carriedOf,
  initialState,
  nextTurn,
  progressOf,
  reduce,
  type MissingIds,
  type NextTurn,
  type ResyncState,
} from "../../../workflows/resync-progress.ts";

const NOW = 1_000_000;
const OF_JOIN: MissingIds = { ofJoin: ["$join's"], ofOthers: [] };
const BOTH: MissingIds = { ofJoin: ["$join's"], ofOthers: ["$one", "$two"] };

function knowing(...names: readonly string[]): ResyncState {
  return reduce(initialState(), { type: "servers-listed", names });
}

interface Failure {
  readonly eventId?: string;
  readonly at?: number;
}

function failing(
  state: ResyncState,
  name: string,
  cause: ServerFault,
  { eventId = "$join's", at = NOW }: Failure = {},
): ResyncState {
  return reduce(state, { type: "server-failed", name, eventId, cause, detail: "no", at, jitter: 0 });
}

function waitOf(state: ResyncState, name: string): number {
  const server = state.servers.find((one) => one.name === name);
  return (server?.nextAttempt ?? 0) - NOW;
}

/** The only missing state is the one that our join builds on. */
function nextServer(state: ResyncState, now: number): NextTurn {
  return nextTurn(state, OF_JOIN, now);
}

function asking(name: string, eventId = "$join's"): NextTurn {
  return { kind: "ask", eventId, name };
}

/** The turns that follow one upon the other while each fails, a minute apart. */
function turns(state: ResyncState, missing: MissingIds, cause: ServerFault, count: number): readonly string[] {
  const seen: string[] = [];
  let current = state;
  for (let turn = 1; turn <= count; turn += 1) {
    const at = NOW + turn * 60_000;
    const next = nextTurn(current, missing, at);
    if (next.kind === "wait") {
      seen.push("wait");
      continue;
    }
    seen.push(`${next.eventId} at ${next.name}`);
    current = failing(current, next.name, cause, { eventId: next.eventId, at });
  }
  return seen;
}

describe("nextTurn", () => {
  it("asks in the order of the list, so that the server that we joined by comes first", () => {
    expect(nextServer(knowing("joined-via", "b"), NOW)).toEqual(asking("joined-via"));
  });

  it("asks the next server after a pause when one has failed", () => {
    const state = failing(knowing("a", "b"), "a", "unreachable");
    expect(nextServer(state, NOW)).toEqual({ kind: "wait", until: NOW + 200 });
    expect(nextServer(state, NOW + 200)).toEqual(asking("b"));
  });

  it("comes back to the server that we joined by before it has been through a long list", () => {
    let state = failing(knowing("joined-via", "b", "c", "d"), "joined-via", "server-error");
    state = failing(state, "b", "not-seen-join", { at: NOW + 200 });
    expect(nextServer(state, NOW + 6_000)).toEqual(asking("joined-via"));
  });

  it("asks a server that has answered before it asks others, and the preferred one before all", () => {
    let state = reduce(knowing("a", "b", "c"), { type: "server-answered", name: "b", eventId: "$one" });
    expect(nextServer(state, NOW)).toEqual(asking("b"));
    state = reduce(state, { type: "server-preferred", name: "elsewhere" });
    expect(nextServer(state, NOW)).toEqual(asking("elsewhere"));
  });

  it("waits for the first server to fall due when all have failed, and for good news when none is known", () => {
    const state = failing(failing(knowing("a", "b"), "a", "forbidden"), "b", "unreachable");
    expect(nextServer(state, NOW + 1_000)).toEqual({ kind: "wait", until: NOW + 5_000 });
    expect(nextServer(initialState(), NOW)).toEqual({ kind: "wait" });
  });

  it("asks for what our join builds on first", () => {
    expect(nextTurn(knowing("a"), BOTH, NOW)).toEqual(asking("a"));
  });

  it("lets another state take its turn at a server that lacks the first", () => {
    const state = failing(knowing("a"), "a", "unknown-event");
    expect(nextTurn(state, BOTH, NOW + 1_000)).toEqual(asking("a", "$one"));
    expect(nextTurn(state, OF_JOIN, NOW + 1_000)).toEqual({ kind: "wait", until: NOW + 2_000 });
  });

  it("asks a server that can't be reached for nothing else meanwhile", () => {
    const state = failing(knowing("a"), "a", "unreachable");
    expect(nextTurn(state, BOTH, NOW + 1_000)).toEqual({ kind: "wait", until: NOW + 5_000 });
    const back = failing(state, "a", "unknown-event", { at: NOW + 5_000 });
    expect(nextTurn(back, BOTH, NOW + 6_000)).toEqual(asking("a", "$one"));
  });

  it("sleeps until the earliest is due where all wait", () => {
    let state = failing(knowing("a"), "a", "forbidden");
    state = failing(state, "a", "unknown-event", { eventId: "$one" });
    state = failing(state, "a", "server-error", { eventId: "$two" });
    expect(nextTurn(state, BOTH, NOW + 1_000)).toEqual({ kind: "wait", until: NOW + 2_000 });
  });

  it("lets each have its turn however long all fail, what our join builds on every second one", () => {
    expect(turns(knowing("a"), BOTH, "not-seen-join", 8)).toEqual([
      "$join's at a",
      "$one at a",
      "$join's at a",
      "$two at a",
      "$join's at a",
      "$one at a",
      "$join's at a",
      "$two at a",
    ]);
  });

  it("asks for another state whenever a server that could not be reached is due again", () => {
    const asked = turns(knowing("a"), { ofJoin: [], ofOthers: ["$one", "$two", "$three"] }, "unreachable", 6);
    expect(asked.filter((turn) => turn !== "wait")).toEqual([
      "$one at a",
      "$two at a",
      "$three at a",
      "$one at a",
      "$two at a",
    ]);
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

  it("honors a longer wait that the server asks for, up to an hour", () => {
    const event = {
      type: "server-failed",
      name: "a",
      eventId: "$one",
      cause: "server-error",
      detail: "busy",
      at: NOW,
      jitter: 0,
    } as const;
    expect(waitOf(reduce(knowing("a"), { ...event, retryAfterMs: 90_000 }), "a")).toBe(90_000);
    for (const tooLong of [7_200_000, Number.MAX_SAFE_INTEGER]) {
      expect(waitOf(reduce(knowing("a"), { ...event, retryAfterMs: tooLong }), "a")).toBe(3_600_000);
    }
  });

  it("forgets every wait, but no cause, when an operator retries", () => {
    const state = reduce(failing(knowing("a"), "a", "forbidden"), { type: "retry-wished" });
    expect(nextServer(state, NOW)).toEqual(asking("a"));
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

describe("reduce, where the list of servers is full", () => {
  const names = Array.from({ length: 500 }, (_one, index) => `server-${index}`);
  const nameIn = (state: ResyncState): readonly string[] => state.servers.map((server) => server.name);

  it("lets the preferred server in for the one that failed most", () => {
    let state = failing(knowing(...names), "server-3", "unknown-event");
    for (let time = 1; time <= 3; time += 1) state = failing(state, "server-7", "not-seen-join");
    state = reduce(state, { type: "server-preferred", name: "elsewhere" });
    expect(nextServer(state, NOW)).toEqual(asking("elsewhere"));
    expect(nameIn(state)).toEqual([...names.filter((name) => name !== "server-7"), "elsewhere"]);
  });

  it("lets the preferred server in where none has failed, for the last, and keeps it as it fails", () => {
    let state = reduce(knowing(...names), { type: "server-preferred", name: "elsewhere" });
    expect(nextServer(state, NOW)).toEqual(asking("elsewhere"));
    expect(nameIn(state)).toEqual([...names.slice(0, -1), "elsewhere"]);
    state = failing(failing(state, "elsewhere", "unknown-event"), "server-1", "unknown-event");
    state = reduce(state, { type: "servers-listed", names: ["new-1", "new-2"] });
    expect(nameIn(state)).toEqual(["server-0", ...names.slice(2, -1), "elsewhere", "new-1"]);
  });

  it("lets newly listed servers in for those that failed, and whoever was asked in vain comes back last", () => {
    let state = knowing(...names);
    for (const name of names.slice(0, 3)) state = failing(state, name, "unknown-event");
    state = reduce(state, { type: "servers-listed", names: [...names, "new-1", "new-2", "new-3"] });
    expect(nameIn(state)).toEqual(["server-0", ...names.slice(3), "new-1", "new-2"]);
    state = failing(state, "server-3", "unknown-event");
    state = reduce(state, { type: "servers-listed", names: [...names, "new-1", "new-2", "new-3"] });
    expect(nameIn(state)).toEqual(["server-0", ...names.slice(4), "new-1", "new-2", "new-3"]);
  });

  it("keeps the server that we joined by, whose place is the first", () => {
    const state = reduce(failing(knowing(...names), "server-0", "unknown-event"), {
      type: "servers-listed",
      names: ["new"],
    });
    expect(nameIn(state)).toEqual(names);
  });

  it("lets nobody in for those that are yet to be asked, nor in a run of an earlier release", () => {
    const full = knowing(...names);
    expect(nameIn(reduce(full, { type: "servers-listed", names: ["new"] }))).toEqual(names);
    const failed = failing(full, "server-1", "unknown-event");
    const closed = { name: "new", names: ["new"], staysClosed: true } as const;
    expect(nameIn(reduce(failed, { type: "servers-listed", ...closed }))).toEqual(names);
    expect(nameIn(reduce(failed, { type: "server-preferred", ...closed }))).toEqual(names);
  });
});

describe("carriedOf", () => {
  it("is bounded, however many states and servers there are, and forgets the shortest waits first", () => {
    let state = knowing("a", "b");
    for (let index = 0; index < 1_000; index += 1) {
      const cause = index === 0 ? "forbidden" : "unknown-event";
      state = failing(state, "a", cause, { eventId: `$${index}`, at: NOW + index });
    }
    const carried = carriedOf(state);
    expect(carried.waits).toHaveLength(500);
    expect(carried.waits?.map(({ eventId }) => eventId)).toEqual(expect.arrayContaining(["$0", "$999"]));
    expect(carried.failedInTurn).toHaveLength(500);
    expect(JSON.stringify(carried).length).toBeLessThan(100_000);
  });

  it("lets the next run go on with the waits of this one", () => {
    const state = failing(knowing("a", "b"), "a", "forbidden", { eventId: "$one" });
    const next = initialState(carriedOf(state));
    expect(nextTurn(next, { ofJoin: [], ofOthers: ["$one", "$two"] }, NOW + 1_000)).toEqual(asking("a", "$two"));
    expect(nextTurn(next, { ofJoin: [], ofOthers: ["$one"] }, NOW + 1_000)).toEqual(asking("b", "$one"));
  });

  it("of an earlier release makes each wait one for every state", () => {
    const servers = [
      { name: "a", result: "failed", cause: "forbidden", failures: 2, nextAttempt: NOW + 9_000 },
    ] as const;
    const counts = { phase: "waiting", partialEvents: 1, idsLeft: 0, failuresInARow: 2, lastFailureAt: NOW } as const;
    const state = initialState({ ...counts, servers });
    expect(state.waits).toEqual([
      { eventId: EVERY_STATE, name: "a", cause: "forbidden", failures: 2, nextAttempt: NOW + 9_000 },
    ]);
    expect(nextServer(state, NOW + 1_000)).toEqual({ kind: "wait", until: NOW + 9_000 });
  });
});

describe("progressOf", () => {
  it("names the missing states, and who was asked for each in vain", () => {
    let state = reduce(knowing("a", "b", "c"), { type: "states-missing", missing: BOTH });
    state = failing(state, "a", "unknown-event", { eventId: "$one" });
    state = failing(state, "b", "unreachable", { eventId: "$one" });
    const lacksIt = { name: "a", cause: "unknown-event", failures: 1, nextAttempt: NOW + 2_000 };
    const away = { name: "b", cause: "unreachable", failures: 1, nextAttempt: NOW + 5_000 };
    expect(progressOf(state).missingStates).toEqual([
      { eventId: "$join's", ofJoin: true, servers: [away] },
      { eventId: "$one", ofJoin: false, servers: [lacksIt, away] },
      { eventId: "$two", ofJoin: false, servers: [away] },
    ]);
    expect(progressOf(state).servers).toMatchObject([
      { name: "a", result: "failed", cause: "unknown-event", nextAttempt: NOW + 2_000 },
      { name: "b", result: "failed", cause: "unreachable", nextAttempt: NOW + 5_000 },
    ]);
  });

  it("leaves out the servers that were not asked", () => {
    expect(progressOf(knowing("a", "b")).servers).toEqual([]);
  });
});
