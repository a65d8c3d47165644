// Records the histories that `replay.test.ts` replays: `node --import tsx test/replay/record-histories.ts VERSION`.
// Run it once for each released version of the workflows; a recording is never edited.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { historyToJSON } from "@temporalio/common/lib/proto-utils.js";
import { retrySignal } from "../../workflows/contract.ts";
import { openWorkflowTheater, type Story } from "../support/resync-stories.ts";

const version = process.argv[2];
if (version === undefined || !/^\d+$/.test(version)) throw new Error("usage: record-histories.ts VERSION");

const FETCH = { kind: "fetch", eventIds: ["$prev"], ofJoin: ["$prev"], partialEvents: 1 } as const;
const REPAIR = { kind: "repair", eventIds: ["$join"], partialEvents: 1 } as const;
const UNKNOWN = { kind: "failed", cause: "unknown-event", detail: "404 M_NOT_FOUND" } as const;
const UNREACHABLE = { kind: "failed", cause: "unreachable", detail: "no route" } as const;

const theater = await openWorkflowTheater();

async function record(
  name: string,
  story: Story,
  meanwhile: (handle: Parameters<Parameters<typeof theater.perform>[1]>[0]) => Promise<void> = async () => {},
): Promise<void> {
  await theater.perform(story, async (handle) => {
    await meanwhile(handle);
    await handle.result().catch(() => undefined);
    const history = historyToJSON(await handle.fetchHistory());
    await writeFile(join(import.meta.dirname, "histories", `resync-${version}-${name}.json`), history);
  });
}

try {
  await record("at-once", { steps: [FETCH, REPAIR], servers: ["a"], ask: () => ({ kind: "complete" }) });
  await record(
    "after-failures-and-a-retry",
    {
      steps: [FETCH, REPAIR],
      servers: ["a", "b"],
      ask: (server, attempt) => (server === "b" && attempt === 3 ? { kind: "complete" } : UNREACHABLE),
    },
    async (handle) => {
      await theater.environment.sleep("1s");
      await handle.signal(retrySignal);
    },
  );
  const both = { kind: "fetch", eventIds: ["$prev", "$lost"], ofJoin: ["$prev"], partialEvents: 2 } as const;
  const turns: Story = {
    steps: [both],
    servers: ["a", "b"],
    ask: (server, attempt, eventId) => {
      if (eventId === "$lost") return attempt > 4 ? { kind: "complete" } : UNKNOWN;
      if (server === "a") return UNKNOWN;
      turns.steps.splice(0, 1, { ...both, eventIds: ["$prev"] }, REPAIR, { ...both, eventIds: ["$lost"], ofJoin: [] });
      return { kind: "complete" };
    },
  };
  await record("two-states-by-turns", turns);
  await record("its-report-lost", { steps: [REPAIR], servers: [], ask: () => UNREACHABLE, losesReport: true });
  await record("cancelled", { steps: [FETCH], servers: ["a"], ask: () => UNREACHABLE }, async (handle) => {
    await theater.environment.sleep("1s");
    await handle.cancel();
  });
} finally {
  await theater.close();
}
