import { expect } from "vitest";
import { prevEventIds } from "../../src/matrix/event.ts";
import type { EventId, RoomId } from "../../src/matrix/identifiers.ts";
import { receiveWaitingPdus } from "../../src/rooms/receive/receive-waiting-pdus.ts";
import { loadEvent } from "../../src/storage/events.ts";
import { timeline } from "../../src/storage/timeline.ts";
import { countWaitingPdus } from "../../src/storage/waiting-pdus.ts";
import type { Front } from "../resident/front.ts";
import type { Sent, Sending, StateChange } from "../resident/resident.ts";
import type { Endpoint } from "../resident/trouble.ts";
import { completeResync, enterRoom, type EnteredRoom } from "./race-scene.ts";
import type { Scene } from "./scene.ts";

/** Whether what arrives meets the room with its partial state or with its full one. */
export type Standing = "partial" | "full";
export const STANDINGS: readonly Standing[] = ["partial", "full"];

export async function enterAs(scene: Scene, standing: Standing): Promise<EnteredRoom> {
  const entered = await enterRoom(scene);
  if (standing === "full") await completeResync(scene, entered);
  return entered;
}

/** The room is brought to its full state, which is the resident's, and each of these events is in it, once. */
export async function expectAllThere(
  scene: Scene,
  entered: EnteredRoom,
  eventIds: readonly EventId[],
  standing: Standing,
): Promise<void> {
  const { pool } = scene.database;
  expect(await countWaitingPdus(pool, entered.roomId)).toBe(0);
  const seen = await timeline(pool, entered.roomId, { direction: "forward", limit: 10_000 });
  const ids = seen.map((event) => event.eventId);
  expect(eventIds.filter((id) => !ids.includes(id))).toEqual([]);
  expect(new Set(ids).size).toBe(ids.length);
  if (standing === "partial") await completeResync(scene, entered);
  for (const id of eventIds) expect(await loadEvent(pool, id)).toMatchObject({ outlier: false, rejection: null });
  expect(await scene.sidecar.currentState(entered.roomId)).toEqual(scene.resident.fullState(entered.room));
}

/** How often an endpoint of a server was asked about a room, from now on. */
export function countRequests(front: Front, endpoint: Endpoint, { roomId }: { readonly roomId: RoomId }): () => number {
  const before = front.requests.length;
  const path = encodeURIComponent(roomId);
  const ofRoom = (uri: string): boolean => uri.includes(roomId) || uri.includes(path);
  return () =>
    front.requests.slice(before).filter((request) => request.endpoint === endpoint && ofRoom(request.uri)).length;
}

/** Events that the resident makes and keeps to itself, one upon the other: every third one is of state. */
export async function unsent(scene: Scene, { room }: EnteredRoom, count: number, from = 0): Promise<readonly Sent[]> {
  const { resident } = scene;
  const sent: Sent[] = [];
  for (let index = from; index < from + count; index += 1) {
    const quiet: Sending = { push: false };
    const change: StateChange = { type: "org.example.step", stateKey: `${index % 7}`, content: { index } };
    sent.push(
      index % 3 === 0
        ? await resident.sendState(room, change, quiet)
        : await resident.sendMessage(room, resident.founder, `message ${index}`, quiet),
    );
  }
  return sent;
}

export function idsOf(sent: readonly Sent[]): readonly EventId[] {
  return sent.map(({ eventId }) => eventId);
}

export function prevOf({ event }: Sent): readonly EventId[] {
  return prevEventIds(event.pdu);
}

/** What waits in the room has its turn now, so many times. */
export async function handleWaiting(scene: Scene, { roomId }: EnteredRoom, rounds = 1): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    await scene.database.pool.query(
      "UPDATE waiting_pdus SET retry_at = date_trunc('second', now()) - interval '1 second' WHERE room_id = $1",
      [roomId],
    );
    // On a slow machine, what is postponed for a second would be due again in the same round.
    const now = scene.sidecar.ctx.now();
    await receiveWaitingPdus({ ...scene.sidecar.ctx, now: () => now });
  }
}

/** The same order each time, as mixed as that of cards. */
export function shuffled<T>(items: readonly T[], seed = 1): readonly T[] {
  const mixed = [...items];
  let state = seed;
  for (let index = mixed.length - 1; index > 0; index -= 1) {
    state = (state * 48_271) % 2_147_483_647;
    const other = state % (index + 1);
    [mixed[index], mixed[other]] = [mixed[other] as T, mixed[index] as T];
  }
  return mixed;
}
