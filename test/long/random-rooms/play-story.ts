import type { EventId } from "../../../src/matrix/identifiers.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { partialRoom } from "../../../src/storage/partial-state.ts";
import { execute } from "../../../src/storage/query.ts";
import { countWaitingPdus } from "../../../src/storage/waiting-pdus.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { draftOf } from "./deeds.ts";
import { actForOurs } from "./own-deeds.ts";
import { isTurnedOut, leavesOf, openRoom, speak, type RoomInPlay } from "./room-in-play.ts";
import { setMood, type Server, type Stage } from "./stage.ts";
import type { Crash, Happening, Step, Story } from "./story.ts";
import { allOf, letTimePass, settle, tell, tellOfJoins, tellTwin, whileWeJoin } from "./tell.ts";

/** Tells a room's life from its beginning until its state is full and nothing waits any more. */
export async function playStory(stage: Stage, story: Story): Promise<RoomInPlay> {
  const play = openRoom(stage, story);
  const { fronts } = stage.resident;
  for (const happening of story.before) await happen(play, happening);
  await joinAsTwin(play);
  const between: EventId[] = [];
  for (const happening of story.between) between.push(await happen(play, happening));
  await tellTwin(play, between);
  const endMoods = story.moods.map((mood, index) => {
    const front = fronts[index + 1];
    return front === undefined ? () => undefined : setMood(stage, front, mood);
  });
  try {
    await joinAsOurs(play);
    for (const step of story.after) if (!isTurnedOut(play)) await take(play, step);
    if (!isTurnedOut(play)) await end(play);
  } finally {
    for (const endMood of endMoods) endMood();
  }
  return play;
}

async function happen(play: RoomInPlay, happening: Happening): Promise<EventId> {
  return await speak(play, draftOf(play, happening));
}

async function joinAsTwin(play: RoomInPlay): Promise<void> {
  const { resident, twin } = play.stage;
  const { userId, ctx } = twin.sidecar;
  const joined = await joinRoom(ctx, { userId, roomId: play.room.roomId, via: [resident.serverName] });
  if (joined.partial) throw new Error("the twin's join is partial");
  play.twinJoin = joined.eventId;
}

async function joinAsOurs(play: RoomInPlay): Promise<void> {
  const { stage, story, room } = play;
  const { resident, ours } = stage;
  const names = resident.fronts.map((front) => front.serverName);
  const via = [...names.slice(story.via), ...names.slice(0, story.via)];
  const meanwhile = whileWeJoin(play, async () => {
    const eventIds: EventId[] = [];
    for (const happening of story.meanwhile) {
      const id = await happen(play, happening);
      if (!happening.silent) eventIds.push(id);
    }
    return eventIds;
  });
  await ours.survive(story.crashAtJoin, async () => {
    const { userId, ctx } = ours.sidecar;
    const joined = await joinRoom(ctx, { userId, roomId: room.roomId, via });
    play.join = joined.eventId;
  });
  const { eventIds, acknowledged, join } = await meanwhile();
  await settle(play);
  await tellOfJoins(play);
  if (isTurnedOut(play)) return;
  // What came at a join that failed after all is history to the next one, which builds on it.
  if (acknowledged && join === play.join) for (const id of eventIds) play.toldOurs.add(id);
  if (acknowledged) await tellTwin(play, eventIds);
  else await tell(play, { eventIds, origin: resident.serverName, manner: "one by one", mix: 0, crash: null });
}

async function take(play: RoomInPlay, step: Step): Promise<void> {
  const { ours, twin, resident } = play.stage;
  switch (step.step) {
    case "others": {
      const told: EventId[] = [];
      for (const happening of step.happenings) {
        const id = await happen(play, happening);
        if (!happening.silent) told.push(id);
      }
      if (isTurnedOut(play)) return;
      const origin = resident.fronts[step.from % resident.fronts.length]?.serverName ?? resident.serverName;
      return await tell(play, { ...step, eventIds: told, origin });
    }
    case "ours":
      return await actForOurs(play, step);
    case "resync":
      return await resync(play, step);
    case "time passes":
      await ours.survive(step.crash, async () => await letTimePass(ours, 600_000));
      return await letTimePass(twin, 600_000);
  }
}

interface Resyncing {
  readonly steps: number;
  readonly drivers: number;
  readonly crash: Crash | null;
}

/** Some steps of the resync, or all that is left of it; by two workers at once, if need be. */
async function resync(play: RoomInPlay, { steps, drivers, crash }: Resyncing): Promise<void> {
  const { ours } = play.stage;
  const { roomId } = play.room;
  await ours.survive(crash, async () => {
    const { ctx } = ours.sidecar;
    const row = await partialRoom(ctx.database.pool, roomId);
    const joinEventId = row?.joinEventId;
    if (joinEventId === null || joinEventId === undefined) return;
    let taken = 0;
    const drive = async (): Promise<unknown> =>
      await driveResync(ctx, roomId, joinEventId, () => taken++ >= steps * drivers);
    await allOf(Array.from({ length: drivers }, drive));
  });
}

/** All that was kept from us is fetched, all that waits is handled, and the resync ends. */
async function end(play: RoomInPlay): Promise<void> {
  const { stage, story, room } = play;
  const { resident, ours, twin } = stage;
  const { founder: sender } = resident;
  const content = { msgtype: "m.text", body: "the end" };
  const prevEvents = story.together ? leavesOf(play).slice(0, 20) : [...room.extremities].toSorted().slice(0, 10);
  const last = await speak(play, { sender, type: "m.room.message", content, prevEvents });
  play.end = last;
  if (isTurnedOut(play)) return;
  await tell(play, { eventIds: [last], origin: resident.serverName, manner: "one by one", mix: 0, crash: null });
  for (const server of [ours, twin]) await handleAllThatWaits(play, server);
  await resync(play, { steps: 200, drivers: 1, crash: null });
  // The resync may have made room for what waited.
  await handleAllThatWaits(play, ours);
}

const MOST_ROUNDS = 20;

async function handleAllThatWaits({ room }: RoomInPlay, server: Server): Promise<void> {
  for (let round = 1; (await countWaitingPdus(server.database.pool, room.roomId)) > 0; round += 1) {
    if (round > MOST_ROUNDS) throw new Error(`${server.sidecar.serverName} does not come to an end with what waits`);
    await letTimePass(server, round * 600_000);
  }
}

/** Nothing of it comes up in another room's story. */
export async function closeRoom({ stage, room }: RoomInPlay): Promise<void> {
  stage.resident.world.rooms.delete(room.roomId);
  for (const { database } of [stage.ours, stage.twin]) {
    await execute(database.pool, "DELETE FROM waiting_pdus WHERE room_id = $1", [room.roomId]);
  }
}
