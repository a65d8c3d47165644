import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compareWithTwin } from "./random-rooms/compare.ts";
import { closeRoom, playStory } from "./random-rooms/play-story.ts";
import { openStage } from "./random-rooms/stage.ts";
import { stories } from "./random-rooms/story.ts";

/** The seed can be set to try other rooms, and their number to try more. */
const SEED = Number(process.env["RANDOM_ROOMS_SEED"] ?? 20_261_122);
const ROOMS = Number(process.env["RANDOM_ROOMS"] ?? 150);
const PATH = process.env["RANDOM_ROOMS_PATH"];

const stage = await openStage();

describe("a partially joined room in which anything happens", () => {
  it(`ends with the state of a full join, in ${ROOMS} random rooms`, async () => {
    let told = 0;
    let same = 0;
    await fc.assert(
      fc.asyncProperty(stories, async (story) => {
        const play = await playStory(stage, story);
        const { differences, sameArrivals } = await compareWithTwin(play);
        await closeRoom(play);
        told += 1;
        if (sameArrivals) same += 1;
        expect(differences.join("\n")).toBe("");
      }),
      { seed: SEED, numRuns: ROOMS, ...(PATH === undefined ? {} : { path: PATH, endOnFailure: true }) },
    );
    process.stderr.write(`${told} rooms, ${same} with the same arrivals\n`);
  });
});
