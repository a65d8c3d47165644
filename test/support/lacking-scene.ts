import { expect, onTestFinished } from "vitest";
import type { EventId } from "../../src/matrix/identifiers.ts";
import { fetchMissingState } from "../../src/rooms/resync/resync-fetch-state.ts";
import { nextResyncStep } from "../../src/rooms/resync/resync-next-step.ts";
import { repairEvents } from "../../src/rooms/resync/resync-repair-events.ts";
import { deleteResyncStateIds } from "../../src/storage/resync-state-ids.ts";
import { countRequests, handleWaiting } from "./gap-scene.ts";
import { enterRoom, join, ourUser, type EnteredRoom } from "./race-scene.ts";
import type { Scene } from "./scene.ts";

const quiet = { push: false };

/** A room of which one partial event lacks a state that nobody gives. */
export interface LackingRoom extends EnteredRoom {
  readonly lost: EventId;
  /** The event that builds on it. */
  readonly lacking: EventId;
  /** From now on the resident gives the state. */
  readonly give: () => void;
}

function giveNothingAt({ resident }: Scene, lost: EventId): () => void {
  const end = resident.trouble({ kind: "refuse", status: 404, at: ["state_ids", "state"], forEvent: lost });
  onTestFinished(end);
  return end;
}

/** Another server's event with one prev_event that we know, and one whose state was told once and is lost since. */
export async function withHalfAGap(scene: Scene): Promise<LackingRoom> {
  const { resident, database } = scene;
  const entered = await enterRoom(scene);
  const tip = { prevEvents: [...entered.room.extremities] };
  await resident.sendMessage(entered.room, resident.founder, "known", tip);
  const topic = { type: "m.room.topic", content: { topic: "lost" } };
  const { eventId: lost } = await resident.sendState(entered.room, topic, { ...tip, ...quiet });
  const refusing = resident.trouble({ kind: "refuse", status: 404, at: "get_missing_events" });
  const { eventId: lacking } = await resident.sendMessage(entered.room, resident.founder, "after half a gap");
  await handleWaiting(scene, entered);
  refusing();
  await deleteResyncStateIds(database.pool, entered.roomId, lost);
  return { ...entered, lost, lacking, give: giveNothingAt(scene, lost) };
}

/**
 * Bob's join in a room that alice is in and whose topic we have seen change, by a server that gives nothing of the gap
 * between.
 */
export async function withASecondJoin(scene: Scene): Promise<LackingRoom & { readonly topic: EventId }> {
  const { resident, sidecar } = scene;
  const entered = await enterRoom(scene);
  const change = { type: "m.room.topic", content: { topic: "seen before the gap" } };
  const { eventId: topic } = await resident.sendState(entered.room, change);
  const { eventId: lost } = await resident.sendMessage(entered.room, resident.founder, "not for you", quiet);
  const asked = countRequests(resident.front, "get_missing_events", entered);
  const refusing = resident.trouble({ kind: "refuse", status: 404, at: "get_missing_events" });
  const { eventId: lacking } = await join(scene, sidecar.ctx, entered.room, ourUser(scene, "bob"));
  await expect.poll(asked).toBe(1);
  refusing();
  return { ...entered, lost, lacking, topic, give: giveNothingAt(scene, lost) };
}

/** Repairs what can be repaired while nobody gives the lost state. */
export async function repairAllBut({ sidecar, resident }: Scene, { target, lost }: LackingRoom): Promise<void> {
  const { ctx } = sidecar;
  for (;;) {
    const step = await nextResyncStep(ctx, target);
    if (step.kind !== "fetch" && step.kind !== "repair") throw new Error(`the resync is at ${step.kind}`);
    if (step.kind === "repair") {
      await repairEvents(ctx, target, step.eventIds);
      continue;
    }
    const given = step.eventIds.filter((eventId) => eventId !== lost);
    if (given.length === 0) return;
    for (const eventId of given) await fetchMissingState(ctx, { ...target, eventId, server: resident.serverName });
  }
}
