import { setTimeout as delay } from "node:timers/promises";
import { Context } from "@temporalio/activity";
import { WorkflowFailedError } from "@temporalio/client";
import type { TestWorkflowEnvironment } from "@temporalio/testing";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { preferServerSignal, progressQuery, retrySignal } from "../../workflows/contract.ts";
import { openWorkflowTheater, type Story, type WorkflowTheater } from "../support/resync-stories.ts";

const DAY_MS = 24 * 60 * 60_000;

/**
 * For what comes about at the pace of real clocks: where the test let the clock leap on meanwhile, a busy machine would
 * find the workflow hours later instead of where it is to be met.
 */
const PATIENT = { timeout: 120_000, interval: 50 };

let theater: WorkflowTheater;
let environment: TestWorkflowEnvironment;

beforeAll(async () => {
  theater = await openWorkflowTheater();
  environment = theater.environment;
});
afterAll(async () => {
  await theater.close();
});

const FETCH = { kind: "fetch", eventIds: ["$prev"], ofJoin: ["$prev"], partialEvents: 1 } as const;
const REPAIR = { kind: "repair", eventIds: ["$join"], partialEvents: 1 } as const;
const FAILED = { kind: "failed", cause: "unreachable", detail: "no route" } as const;

describe("resync", () => {
  it("fetches, repairs and finishes", async () => {
    const story: Story = { steps: [FETCH, REPAIR], servers: ["a"], ask: () => ({ kind: "complete" }) };
    const told = await theater.perform(story, async (handle) => {
      expect(await handle.result()).toBe("completed");
    });
    expect(told.asked.map((one) => one.server)).toEqual(["a"]);
    expect(told.repaired).toEqual([["$join"]]);
  });

  it("takes the next step from what an activity tells, and asks for it only where none does", async () => {
    const story: Story = { steps: [FETCH], servers: ["a"], ask: () => ({ kind: "complete", next: REPAIR }) };
    const told = await theater.perform(story, async (handle) => {
      expect(await handle.result()).toBe("completed");
    });
    // Of this one the list of steps knows nothing.
    expect(told.repaired).toEqual([["$join"]]);
  });

  it("outlasts a day on which every server fails, and goes on with the first that helps", async () => {
    const start = await environment.currentTimeMs();
    const story: Story = {
      steps: [FETCH, REPAIR],
      servers: ["a", "b", "c"],
      ask: async (server) =>
        server === "b" && (await environment.currentTimeMs()) - start > DAY_MS ? { kind: "complete" } : FAILED,
    };
    const told = await theater.perform(story, async (handle) => {
      expect(await handle.result()).toBe("completed");
    });
    const last = told.asked.at(-1);
    expect(last?.server).toBe("b");
    // Ten minutes are the longest wait for a server that is unreachable: an outage's end is noticed soon after.
    expect((last?.at ?? 0) - start - DAY_MS).toBeLessThan(15 * 60_000);
    expect(told.asked.length).toBeLessThan(3 * (DAY_MS / 600_000) + 50);
  });

  it("keeps each server's cause apart in its progress", async () => {
    const causes = { a: "not-seen-join", b: "forbidden", c: "unreachable" } as const;
    const story: Story = {
      steps: [FETCH],
      servers: ["a", "b", "c"],
      ask: (server) => ({ ...FAILED, cause: causes[server as keyof typeof causes] }),
    };
    await theater.perform(story, async (handle) => {
      const told = async (): Promise<unknown> => {
        const progress = await handle.query(progressQuery);
        return Object.fromEntries(progress.servers.map((server) => [server.name, server.cause]));
      };
      await expect.poll(told, PATIENT).toEqual(causes);
      expect((await handle.query(progressQuery)).partialEvents).toBe(1);
      await handle.terminate();
    });
  });

  it("asks again at once when an operator retries, and the preferred server first", async () => {
    let helpful = false;
    const story: Story = {
      steps: [FETCH, REPAIR],
      servers: ["a"],
      ask: (server) => (helpful && server === "z" ? { kind: "complete" } : { ...FAILED, cause: "forbidden" }),
    };
    const told = await theater.perform(story, async (handle, seen) => {
      const isAtRest = async (): Promise<unknown> => {
        const { phase } = await handle.query(progressQuery);
        return [phase, ...seen.asked.map((one) => one.server)];
      };
      await expect.poll(isAtRest, PATIENT).toEqual(["waiting", "a"]);
      await handle.signal(retrySignal);
      await expect.poll(isAtRest, PATIENT).toEqual(["waiting", "a", "a"]);
      helpful = true;
      await handle.signal(preferServerSignal, "z");
      expect(await handle.result()).toBe("completed");
    });
    expect(told.asked.at(-1)?.server).toBe("z");
  });

  it("leaves a server that takes its time when an operator prefers another", async () => {
    const story: Story = {
      steps: [FETCH, REPAIR],
      servers: ["slow"],
      ask: async (server) => {
        if (server === "slow") await Context.current().sleep("10m");
        return { kind: "complete" };
      },
    };
    const told = await theater.perform(story, async (handle, seen) => {
      while (seen.asked.length === 0) await delay(50);
      await handle.signal(preferServerSignal, "quick");
      expect(await handle.result()).toBe("completed");
    });
    expect(told.asked.map((one) => one.server)).toEqual(["slow", "quick"]);
  });

  it("records a cancel before it ends as cancelled", async () => {
    const story: Story = { steps: [FETCH], servers: ["a"], ask: () => FAILED };
    const told = await theater.perform(story, async (handle) => {
      await expect.poll(async () => (await handle.query(progressQuery)).phase, PATIENT).toBe("waiting");
      await handle.cancel();
      await expect(handle.result()).rejects.toThrow(WorkflowFailedError);
      expect((await handle.describe()).status.name).toBe("CANCELLED");
    });
    expect(told.cancelled).toBe(1);
  });

  it("ends as completed-by-leave when nobody of ours is left, and as superseded after a re-join", async () => {
    for (const [kind, outcome] of [
      ["left", "completed-by-leave"],
      ["superseded", "superseded"],
    ] as const) {
      await theater.perform({ steps: [{ kind }], servers: [], ask: () => FAILED }, async (handle) => {
        expect(await handle.result()).toBe(outcome);
      });
    }
  });

  it("repairs what it can while nobody gives another state, and says for which it waits", async () => {
    const fetch = { kind: "fetch", eventIds: ["$prev", "$lost"], ofJoin: ["$prev"], partialEvents: 2 } as const;
    const story: Story = {
      steps: [fetch],
      servers: ["a", "b"],
      ask: (server, _attempt, eventId) => {
        if (server === "b" && eventId === "$prev") {
          const lost = { ...fetch, eventIds: ["$lost"], ofJoin: [], partialEvents: 1 } as const;
          story.steps.splice(0, 1, { ...fetch, eventIds: ["$prev"] }, REPAIR, lost);
          return { kind: "complete" };
        }
        return { ...FAILED, cause: "unknown-event" };
      },
    };
    const told = await theater.perform(story, async (handle, seen) => {
      const servers = ["a", "b"].map((name) => expect.objectContaining({ name, cause: "unknown-event" }));
      const lost = expect.objectContaining({ eventId: "$lost", ofJoin: false, servers });
      await expect
        .poll(() => handle.query(progressQuery), PATIENT)
        .toMatchObject({ phase: "waiting", missingStates: [lost] });
      expect(seen.repaired).toEqual([["$join"]]);
      expect((await handle.describe()).memo).toMatchObject({ missingStates: [{ eventId: "$lost", ofJoin: false }] });
      // An operator drops the event that builds on it.
      story.steps.splice(0, 1, { ...REPAIR, eventIds: ["$dropped"] });
      await handle.signal(retrySignal);
      expect(await handle.result()).toBe("completed");
    });
    expect(told.repaired).toEqual([["$join"], ["$dropped"]]);
    expect(told.asked.slice(0, 2)).toMatchObject([
      { server: "a", eventId: "$prev" },
      { server: "a", eventId: "$lost" },
    ]);
  });

  it("ends as completed though its worker was killed before it could report the end", async () => {
    const story: Story = { steps: [REPAIR], servers: [], ask: () => FAILED, losesReport: true };
    await theater.perform(story, async (handle) => {
      expect(await handle.result()).toBe("completed");
    });
  });

  it("keeps its history small by new runs that remember the servers", async () => {
    const story: Story = {
      steps: [FETCH, REPAIR],
      servers: ["a"],
      ask: (_server, attempt) => (attempt === 250 ? { kind: "complete" } : FAILED),
    };
    await theater.perform(story, async (handle) => {
      const firstRun = (await handle.describe()).runId;
      expect(await handle.result()).toBe("completed");
      const last = await handle.describe();
      expect(last.runId).not.toBe(firstRun);
      expect(last.historyLength).toBeLessThan(3_000);
    });
  });
});
