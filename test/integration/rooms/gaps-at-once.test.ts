import { describe, expect, it } from "vitest";
import {
  countRequests,
  enterAs,
  expectAllThere,
  handleWaiting,
  idsOf,
  shuffled,
  STANDINGS,
  unsent,
} from "../../support/gap-scene.ts";
import { openScene } from "../../support/scene.ts";

const scene = await openScene();
const { resident } = scene;

describe.each(STANDINGS)("a hundred events before their prev_events, in a room whose state is %s", (standing) => {
  it.each(["served", "refused"])("come at once in a random order, and all are there, gaps being %s", async (way) => {
    const entered = await enterAs(scene, standing);
    const asks = countRequests(resident.front, "get_missing_events", entered);
    const states = countRequests(resident.front, "state_ids", entered);
    if (way === "refused") resident.trouble({ kind: "refuse", status: 404, at: "get_missing_events" });
    const all = idsOf(await unsent(scene, entered, 100));
    const mixed = shuffled(all, 7);

    const halves = [mixed.slice(0, 50), mixed.slice(50)];
    await Promise.all(halves.map((half) => resident.deliver(entered.room, half)));
    resident.clearTrouble();
    await handleWaiting(scene, entered);

    // Nothing is asked for twice: of a hundred events no more than a hundred can be missing.
    expect(asks()).toBeLessThanOrEqual(way === "served" ? 10 : 100);
    expect(states()).toBe(0);
    await expectAllThere(scene, entered, all, standing);
  });
});
