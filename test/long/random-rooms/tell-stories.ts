import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compareWithTwin, type Compared } from "./compare.ts";
import { closeRoom, playStory } from "./play-story.ts";
import { openStage, type Stage } from "./stage.ts";
import { stories, type Story } from "./story.ts";

/** The seed can be set to try other rooms, and their number to try more. */
const SEED = Number(process.env["RANDOM_ROOMS_SEED"] ?? 20_261_122);
const ROOMS = Number(process.env["RANDOM_ROOMS"] ?? 2_000);
/** Of a counterexample, as fast-check prints it: that one story is told again. */
const PATH = process.env["RANDOM_ROOMS_PATH"];

/** With fewer rooms than this, chance decides whether something has happened in any of them. */
const ENOUGH_ROOMS = 200;

/** Many times what a room takes: a counterexample is told again and again to be made smaller. */
const LONGEST_FOR_ONE_MS = 3_000;

/**
 * Declares the tests of one of several files that share the rooms, each with a seed of its own: vitest runs them side by
 * side.
 */
export async function tellStories({ part, parts }: { readonly part: number; readonly parts: number }): Promise<void> {
  const stage = await openStage();
  const rooms = PATH === undefined ? Math.ceil(ROOMS / parts) : 1;
  describe("a partially joined room in which anything happens", () => {
    it.runIf(PATH === undefined || part === 0)(
      `ends as a full join does, in ${rooms} random rooms`,
      async () => {
        const seen: Compared[] = [];
        const told = fc.asyncProperty(stories, async (story) => {
          const compared = await tellStory(stage, story);
          seen.push(compared);
          expect(compared.differences.join("\n")).toBe("");
        });
        await fc.assert(told, { seed: SEED + part, numRuns: rooms, ...(PATH === undefined ? {} : { path: PATH }) });
        if (rooms >= ENOUGH_ROOMS) expectVariety(seen);
      },
      LONGEST_FOR_ONE_MS * Math.max(rooms, ENOUGH_ROOMS),
    );
  });
}

async function tellStory(stage: Stage, story: Story): Promise<Compared> {
  const play = await playStory(stage, story);
  try {
    return await compareWithTwin(play);
  } finally {
    await closeRoom(play);
  }
}

/** That nothing differs says little of rooms in which nothing happens. */
function expectVariety(seen: readonly Compared[]): void {
  const share = (holds: (one: Compared) => boolean): number => seen.filter(holds).length / seen.length;
  expect(share((one) => one.turnedOut)).toBeLessThan(0.1);
  expect(share((one) => one.sameArrivals)).toBeGreaterThan(0.25);
  expect(share((one) => one.softFailed > 0)).toBeGreaterThan(0.1);
  expect(share((one) => one.changed > 0)).toBeGreaterThan(0.02);
}
