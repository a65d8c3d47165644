import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { WorkflowFailedError, type WorkflowHandle } from "@temporalio/client";
import { TestWorkflowEnvironment } from "@temporalio/testing";
import { Worker } from "@temporalio/worker";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Activities } from "../../activities/index.ts";
import type { FetchOutcome } from "../../activities/resync-activities.ts";
import {
  MATRIX_ROOM_ID,
  PARTIAL_EVENTS,
  preferServerSignal,
  progressQuery,
  RESYNC_PHASE,
  RESYNC_WORKFLOW,
  retrySignal,
  type ResyncInput,
} from "../../workflows/contract.ts";
import type { resync } from "../../workflows/resync-room.ts";
import { temporalTestServer } from "../support/temporal-cli.ts";

const DAY_MS = 24 * 60 * 60_000;
const ROOM = "!room:example.org";
const JOIN = "$join";

let environment: TestWorkflowEnvironment;

beforeAll(async () => {
  environment = await TestWorkflowEnvironment.createTimeSkipping({
    server: { executable: { type: "existing-path", path: await temporalTestServer() } },
  });
  await environment.connection.operatorService.addSearchAttributes({
    namespace: "default",
    searchAttributes: { [MATRIX_ROOM_ID.name]: 2, [RESYNC_PHASE.name]: 2, [PARTIAL_EVENTS.name]: 3 },
  });
});
afterAll(async () => {
  await environment.teardown();
});

/** What the database and the servers would do: which is the room's story in each test. */
interface Story {
  /** The steps still to come; the last one is repeated. */
  readonly steps: Awaited<ReturnType<Activities["nextResyncStep"]>>[];
  readonly servers: readonly string[];
  readonly ask: (server: string, attempt: number) => FetchOutcome | Promise<FetchOutcome>;
}

interface Told {
  readonly asked: { readonly server: string; readonly at: number }[];
  readonly repaired: string[][];
  cancelled: number;
}

function activitiesOf(story: Story, told: Told): Activities {
  let finished = false;
  const steps = [...story.steps];
  return {
    nextResyncStep: async () => (finished ? { kind: "superseded" } : (steps[0] ?? { kind: "finish" })),
    listServers: async () => story.servers,
    fetchMissingState: async ({ server }) => {
      told.asked.push({ server, at: await environment.currentTimeMs() });
      const attempt = told.asked.filter((one) => one.server === server).length;
      const outcome = await story.ask(server, attempt);
      if (outcome.kind === "complete") steps.shift();
      return outcome;
    },
    repairEvents: async ({ eventIds }) => {
      told.repaired.push([...eventIds]);
      steps.shift();
      return { kind: "repaired", count: eventIds.length, rejectionsChanged: 0 };
    },
    finishResync: async () => {
      finished = true;
      return { kind: "completed", stateEvents: 3 };
    },
    recordCancelled: async () => {
      told.cancelled += 1;
    },
    reconcileResyncs: async () => ({ started: 0 }),
  };
}

const FETCH = { kind: "fetch", eventIds: ["$prev"], partialEvents: 1 } as const;
const REPAIR = { kind: "repair", eventIds: ["$join"], partialEvents: 1 } as const;
const FAILED = { kind: "failed", cause: "unreachable", detail: "no route" } as const;

async function withResync(
  story: Story,
  test: (handle: WorkflowHandle<typeof resync>, told: Told) => Promise<void>,
): Promise<Told> {
  const told: Told = { asked: [], repaired: [], cancelled: 0 };
  const taskQueue = randomUUID();
  const worker = await Worker.create({
    connection: environment.nativeConnection,
    taskQueue,
    workflowsPath: fileURLToPath(new URL("../../workflows/index.ts", import.meta.url)),
    activities: activitiesOf(story, told),
  });
  const input: ResyncInput = { roomId: ROOM, joinEventId: JOIN };
  await worker.runUntil(async () => {
    const handle = await environment.client.workflow.start<typeof resync>(RESYNC_WORKFLOW, {
      workflowId: `resync:${taskQueue}`,
      taskQueue,
      args: [input],
    });
    await test(handle, told);
  });
  return told;
}

describe("resync", () => {
  it("fetches, repairs and finishes", async () => {
    const story: Story = { steps: [FETCH, REPAIR], servers: ["a"], ask: () => ({ kind: "complete" }) };
    const told = await withResync(story, async (handle) => {
      expect(await handle.result()).toBe("completed");
    });
    expect(told.asked.map((one) => one.server)).toEqual(["a"]);
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
    const told = await withResync(story, async (handle) => {
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
    await withResync(story, async (handle) => {
      await environment.sleep("5s");
      const progress = await handle.query(progressQuery);
      expect(Object.fromEntries(progress.servers.map((server) => [server.name, server.cause]))).toEqual(causes);
      expect(progress.partialEvents).toBe(1);
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
    const told = await withResync(story, async (handle, seen) => {
      await environment.sleep("1s");
      expect(seen.asked.map((one) => one.server)).toEqual(["a"]);
      await handle.signal(retrySignal);
      await environment.sleep("1s");
      expect(seen.asked.map((one) => one.server)).toEqual(["a", "a"]);
      helpful = true;
      await handle.signal(preferServerSignal, "z");
      expect(await handle.result()).toBe("completed");
    });
    expect(told.asked.at(-1)?.server).toBe("z");
  });

  it("records a cancel before it ends as cancelled", async () => {
    const story: Story = { steps: [FETCH], servers: ["a"], ask: () => FAILED };
    const told = await withResync(story, async (handle) => {
      await environment.sleep("1s");
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
      await withResync({ steps: [{ kind }], servers: [], ask: () => FAILED }, async (handle) => {
        expect(await handle.result()).toBe(outcome);
      });
    }
  });

  it("keeps its history small by new runs that remember the servers", async () => {
    const story: Story = {
      steps: [FETCH, REPAIR],
      servers: ["a"],
      ask: (_server, attempt) => (attempt === 700 ? { kind: "complete" } : FAILED),
    };
    await withResync(story, async (handle) => {
      const firstRun = (await handle.describe()).runId;
      expect(await handle.result()).toBe("completed");
      const last = await handle.describe();
      expect(last.runId).not.toBe(firstRun);
      expect(last.historyLength).toBeLessThan(3_000);
    });
  });
});
