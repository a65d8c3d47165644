import { prevEventIds } from "../../../src/matrix/event.ts";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { splitStateKey, stateEntries } from "../../../src/matrix/state.ts";
import { admitEvent } from "../../resident/admit-event.ts";
import { composeEvent, type Draft } from "../../resident/compose-event.ts";
import { generateRoom } from "../../resident/generate-room.ts";
import { addEvent, currentState, eventOf, membershipIn, type HostedRoom } from "../../resident/hosted-room.ts";
import { DEFAULT_ROOM, type RoomParameters } from "../../resident/room-parameters.ts";
import { identityIn } from "../../resident/world.ts";
import type { Stage } from "./stage.ts";
import type { Story } from "./story.ts";

/** A room while its story is told. */
export interface RoomInPlay {
  readonly stage: Stage;
  readonly room: HostedRoom;
  readonly story: Story;
  /** Who was ever in the room, and whom the resident can speak for; but for the founder and the honest server's user. */
  readonly users: UserId[];
  /** Events that ours was sent and has acknowledged. */
  readonly toldOurs: Set<EventId>;
  /** Events that the twin was sent, by whomever. */
  readonly toldTwin: Set<EventId>;
  /** Why one of the servers would not have an event, as it told the sender. */
  readonly notTaken: Map<string, string>;
  /** Our join and the twin's. */
  join: EventId | undefined;
  twinJoin: EventId | undefined;
  /** The last event of the story. */
  end: EventId | undefined;
  secondUser: UserId;
  newcomers: number;
}

let rooms = 0;

/** A small room, with a user of each of the resident's servers in it. */
export function openRoom(stage: Stage, story: Story): RoomInPlay {
  rooms += 1;
  const { world, founder } = stage.resident;
  const parameters: RoomParameters = {
    ...DEFAULT_ROOM,
    version: story.version,
    label: `random ${rooms}`,
    members: 5,
    servers: 3,
    bans: story.bans,
    forks: story.forks,
    kicks: 0,
    leaves: 1,
    profileChanges: 0,
    topicChanges: 0,
    messages: 1,
    rejected: 0,
    named: story.named,
  };
  const room = generateRoom(parameters);
  for (const { user } of world.fronts) {
    const content = { membership: "join" };
    addEvent(
      room,
      composeEvent(room, identityIn(world), { sender: user, type: "m.room.member", stateKey: user, content }),
    );
  }
  if (story.clockAhead) room.clock = Date.now();
  world.rooms.set(room.roomId, room);
  const members = [...stateEntries(currentState(room))].flatMap(([key]) => {
    const [type, stateKey] = splitStateKey(key);
    // The honest server stays in the room: some server must know it.
    const stays = stateKey === founder || stateKey === world.fronts[0]?.user;
    return type === "m.room.member" && !stays ? [stateKey as UserId] : [];
  });
  return {
    stage,
    room,
    story,
    users: members.toSorted(),
    toldOurs: new Set(),
    toldTwin: new Set(),
    notTaken: new Map(),
    join: undefined,
    twinJoin: undefined,
    end: undefined,
    secondUser: `@bob:${stage.ours.sidecar.serverName}`,
    newcomers: 0,
  };
}

/** Makes an event that the resident treats like one it received: refused where the rules refuse it. */
export async function speak({ stage, room }: RoomInPlay, draft: Draft): Promise<EventId> {
  const { world, front } = stage.resident;
  const { event } = composeEvent(room, identityIn(world), { ...draft, evenIfRejected: true });
  await admitEvent({ world, room, origin: front.serverName }, event.pdu);
  return event.eventId;
}

/** Accepted events on which no accepted one builds, soft-failed ones too. */
export function leavesOf({ room }: RoomInPlay): readonly EventId[] {
  const accepted = [...room.events.values()].filter(({ event }) => !event.rejected);
  const built = new Set(accepted.flatMap(({ event }) => prevEventIds(event.pdu)));
  return accepted.map(({ event }) => event.eventId).filter((id) => !built.has(id));
}

export function mustKnow({ room }: RoomInPlay, eventId: EventId): NonNullable<ReturnType<typeof eventOf>> {
  const event = eventOf(room, eventId);
  if (event === undefined) throw new Error(`the resident has no event ${eventId}`);
  return event;
}

/** A room's forks may be resolved in such a way that a join was never allowed: then its server is told no more. */
export function isTurnedOut({ stage, room }: RoomInPlay): boolean {
  const state = currentState(room);
  return [stage.ours, stage.twin].some(({ sidecar }) => membershipIn(room, state, sidecar.userId) !== "join");
}
