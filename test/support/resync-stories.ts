import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { Context } from "@temporalio/activity";
import type { WorkflowHandle } from "@temporalio/client";
import { TestWorkflowEnvironment } from "@temporalio/testing";
import {
  bundleWorkflowCode,
  DefaultLogger,
  Runtime,
  Worker,
  type WorkflowBundleWithSourceMap,
} from "@temporalio/worker";
import type { Activities } from "../../activities/index.ts";
import {
  MATRIX_ROOM_ID,
  PARTIAL_EVENTS,
  RESYNC_PHASE,
  RESYNC_WORKFLOW,
  type ResyncInput,
} from "../../workflows/contract.ts";
import type { resync } from "../../workflows/resync-room.ts";
import { temporalTestServer } from "./temporal-cli.ts";

/** What the database and the servers do in one resync. */
export interface Story {
  /** The steps still to come, which the test may change meanwhile; after them, the room is to be finished. */
  readonly steps: Step[];
  readonly servers: readonly string[];
  readonly ask: (server: string, attempt: number, eventId: string) => Fetched | Promise<Fetched>;
  /** The worker dies between the end's commit and its report. */
  readonly losesReport?: boolean;
}

type Step = Awaited<ReturnType<Activities["nextResyncStep"]>>;
type Fetched = Awaited<ReturnType<Activities["fetchMissingState"]>>;

/** What the workflow made of it. */
export interface Told {
  readonly asked: { readonly server: string; readonly eventId: string; readonly at: number }[];
  readonly repaired: string[][];
  cancelled: number;
}

/** Temporal's test server, whose clock leaps ahead, and the workflows, bundled once. */
export interface WorkflowTheater {
  readonly environment: TestWorkflowEnvironment;
  perform(story: Story, test: (handle: WorkflowHandle<typeof resync>, told: Told) => Promise<void>): Promise<Told>;
  close(): Promise<void>;
}

export async function bundleWorkflows(): Promise<WorkflowBundleWithSourceMap> {
  const workflowsPath = fileURLToPath(new URL("../../workflows/index.ts", import.meta.url));
  return await bundleWorkflowCode({ workflowsPath, logger: new DefaultLogger("ERROR") });
}

export async function openWorkflowTheater(): Promise<WorkflowTheater> {
  Runtime.install({ logger: new DefaultLogger("ERROR") });
  const environment = await TestWorkflowEnvironment.createTimeSkipping({
    server: { executable: { type: "existing-path", path: await temporalTestServer() } },
  });
  const [KEYWORD, INT] = [2, 3];
  await environment.connection.operatorService.addSearchAttributes({
    namespace: "default",
    searchAttributes: { [MATRIX_ROOM_ID.name]: KEYWORD, [RESYNC_PHASE.name]: KEYWORD, [PARTIAL_EVENTS.name]: INT },
  });
  const workflowBundle = await bundleWorkflows();
  return {
    environment,
    close: () => environment.teardown(),
    perform: async (story, test) => {
      const told: Told = { asked: [], repaired: [], cancelled: 0 };
      const taskQueue = randomUUID();
      const worker = await Worker.create({
        connection: environment.nativeConnection,
        taskQueue,
        workflowBundle,
        maxHeartbeatThrottleInterval: "1s",
        activities: activitiesOf(environment, story, told),
      });
      const input: ResyncInput = { roomId: "!room:example.org", joinEventId: "$join" };
      await worker.runUntil(async () => {
        const handle = await environment.client.workflow.start<typeof resync>(RESYNC_WORKFLOW, {
          workflowId: `resync:${taskQueue}`,
          taskQueue,
          args: [input],
        });
        await test(handle, told);
      });
      return told;
    },
  };
}

/** As the real activities do: a cancel reaches an activity with its heartbeats. */
async function beating<T>(work: () => T | Promise<T>): Promise<T> {
  const context = Context.current();
  const timer = setInterval(() => context.heartbeat(), 200);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

/** What is left of a step when one of its states is there. */
function without(step: Step | undefined, eventId: string): readonly Step[] {
  if (step?.kind !== "fetch") return [];
  const eventIds = step.eventIds.filter((id) => id !== eventId);
  return eventIds.length === 0 ? [] : [{ ...step, eventIds, ofJoin: step.ofJoin.filter((id) => id !== eventId) }];
}

function activitiesOf(environment: TestWorkflowEnvironment, story: Story, told: Told): Activities {
  let finished = false;
  const { steps } = story;
  return {
    nextResyncStep: async () => (finished ? { kind: "completed" } : (steps[0] ?? { kind: "finish" })),
    listServers: async () => story.servers,
    fetchMissingState: async ({ server, eventId }) => {
      told.asked.push({ server, eventId, at: await environment.currentTimeMs() });
      const attempt = told.asked.filter((one) => one.server === server).length;
      const outcome = await beating(() => story.ask(server, attempt, eventId));
      if (outcome.kind === "complete") steps.splice(0, 1, ...without(steps[0], eventId));
      return outcome;
    },
    repairEvents: async ({ eventIds }) => {
      told.repaired.push([...eventIds]);
      steps.shift();
      return { kind: "repaired", count: eventIds.length, rejectionsChanged: 0 };
    },
    finishResync: async () => {
      if (finished) return { kind: "superseded" };
      finished = true;
      if (story.losesReport === true) throw new Error("the worker was killed");
      return { kind: "completed", stateEvents: 3 };
    },
    recordCancelled: async () => {
      told.cancelled += 1;
    },
    reconcileResyncs: async () => ({ started: 0 }),
  };
}
