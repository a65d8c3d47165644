import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { DefaultLogger, Runtime, Worker } from "@temporalio/worker";
import { describe, expect, it } from "vitest";
import { bundleWorkflows } from "../support/resync-stories.ts";

const FOLDER = join(import.meta.dirname, "histories");
const histories = (await readdir(FOLDER)).filter((name) => name.endsWith(".json")).toSorted();

Runtime.install({ logger: new DefaultLogger("ERROR") });
const workflowBundle = await bundleWorkflows();

async function replay(history: unknown): Promise<void> {
  await Worker.runReplayHistory({ workflowBundle }, history);
}

describe("a recorded history of resync", () => {
  it("is there for each way in which a resync ends", () => {
    expect(histories.length).toBeGreaterThanOrEqual(3);
  });

  for (const name of histories) {
    it(`${name} is replayed by today's workflow`, async () => {
      await expect(replay(JSON.parse(await readFile(join(FOLDER, name), "utf8")))).resolves.toBeUndefined();
    });
  }

  it("fails to replay where it holds another activity than the workflow asks for", async () => {
    const text = await readFile(join(FOLDER, histories[0] ?? ""), "utf8");
    const altered: unknown = JSON.parse(text.replaceAll('"nextResyncStep"', '"someOtherStep"'));
    await expect(replay(altered)).rejects.toThrow(/nondeterminism|TMPRL1100/i);
  });
});
