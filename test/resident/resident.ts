import { EventEmitter, once } from "node:events";
import { paths } from "../../src/federation-api/endpoints.ts";
import type { Event, Pdu } from "../../src/matrix/event.ts";

import { serverNameOf } from "../../src/matrix/identifiers.ts";
import type { EventId, RoomId, ServerName, UserId } from "../../src/matrix/identifiers.ts";
import { isJsonObject } from "../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";
import { stateEntries } from "../../src/matrix/state.ts";
import type { StateKey } from "../../src/matrix/state.ts";
import { composeEvent, hostedEvent } from "./compose-event.ts";
import type { Draft } from "./compose-event.ts";
import { deliver, sendPdus } from "./deliver.ts";
import type { DeliveryResult } from "./deliver.ts";
import { receivedEdus, sendEdus } from "./edus.ts";
import type { ReceivedEdu } from "./edus.ts";
import type { Front } from "./front.ts";
import { FOUNDER } from "./generate-room.ts";
import { addEvent, currentState, joinedByServer, membershipIn, stateEventOf } from "./hosted-room.ts";
import type { HostedRoom } from "./hosted-room.ts";
import { callServer } from "./outbound.ts";
import { openFront } from "./open-front.ts";
import { roomFor } from "./room-cache.ts";
import { DEFAULT_ROOM } from "./room-parameters.ts";
import type { RoomParameters } from "./room-parameters.ts";
import { clearTrouble, makeTrouble } from "./trouble.ts";
import type { Trouble } from "./trouble.ts";
import { identityIn, outsideServers } from "./world.ts";
import type { World } from "./world.ts";

export interface ResidentOptions {
  /** Servers that listen, each with a user in every room. 1. */
  readonly fronts?: number;
  /** Self-signed TLS. True. */
  readonly tls?: boolean;
  /** Check the X-Matrix header of requests. True. */
  readonly verifyRequests?: boolean;
  /** Tell the other servers in a room at once who joined by the resident. True. */
  readonly tellsOfJoins?: boolean;
}

/** How an event is made and sent on. */
export interface Sending extends Pick<Draft, "prevEvents" | "authEvents" | "originServerTs" | "evenIfRejected"> {
  /** False: the event is kept, and sent by `deliver` or asked for. True. */
  readonly push?: boolean;
  /** No endpoint serves the event until `reveal`. False. */
  readonly withhold?: boolean;
  /** False: the resident itself forgets the event: it is sent and nothing else. True. */
  readonly keep?: boolean;
  /** Who sends the transaction: the first front, unless named. */
  readonly origin?: ServerName;
  /** All servers in the room that are not the resident's, unless named. */
  readonly to?: readonly ServerName[];
}

export interface Sent {
  readonly eventId: EventId;
  readonly event: Event;
  readonly results: readonly DeliveryResult[];
}

/** A homeserver for tests: rooms of any size on many servers, and everything that can go wrong with them. */
export interface Resident {
  readonly world: World;
  /** The first front's name, trouble, requests and transactions; further fronts have their own. */
  readonly serverName: ServerName;
  readonly front: Front;
  readonly fronts: readonly Front[];
  /** The creator of every room, who may do anything in it. */
  readonly founder: UserId;
  hostRoom(parameters?: Partial<RoomParameters>): HostedRoom;
  room(roomId: RoomId): HostedRoom;
  /** The truth to compare with: the resolved current state. */
  fullState(room: HostedRoom): ReadonlyMap<StateKey, EventId>;
  joinedMembers(room: HostedRoom): UserId[];
  membership(room: HostedRoom, userId: UserId): string | undefined;
  trouble(trouble: Trouble, front?: Front): () => void;
  clearTrouble(front?: Front): void;
  /** Makes an event by any of the resident's users. */
  send(room: HostedRoom, draft: Draft, sending?: Sending): Promise<Sent>;
  sendMessage(room: HostedRoom, sender: UserId, body: string, sending?: Sending): Promise<Sent>;
  /** Sets state as the founder. */
  sendState(room: HostedRoom, state: StateChange, sending?: Sending): Promise<Sent>;
  join(room: HostedRoom, userId: UserId, sending?: Sending): Promise<Sent>;
  leave(room: HostedRoom, userId: UserId, sending?: Sending): Promise<Sent>;
  kick(room: HostedRoom, userId: UserId, sending?: Sending): Promise<Sent>;
  ban(room: HostedRoom, userId: UserId, sending?: Sending): Promise<Sent>;
  /**
   * Invites a user of another server, whose signature the event then bears, and tells the other servers. By the founder
   * unless named; a server takes an invitation only from the inviter's own server.
   */
  invite(room: HostedRoom, userId: UserId, sending?: Sending & { readonly by?: UserId }): Promise<Sent>;
  /** Sends any PDUs as they are, such as forged ones. */
  sendPdus(
    room: HostedRoom,
    pdus: readonly JsonValue[],
    sending?: Pick<Sending, "to" | "origin">,
  ): Promise<DeliveryResult[]>;
  /** Sends events that the room holds, in this order. */
  deliver(
    room: HostedRoom,
    eventIds: readonly EventId[],
    sending?: Pick<Sending, "to" | "origin">,
  ): Promise<DeliveryResult[]>;
  /** Sends EDUs, at most 100 a transaction, as they are. */
  sendEdus(
    to: readonly ServerName[],
    edus: readonly JsonValue[],
    sending?: Pick<Sending, "origin"> & { readonly pdus?: readonly JsonValue[] },
  ): Promise<DeliveryResult[]>;
  /** What came to any of the fronts. */
  readonly received: {
    /** In their order, each with who sent it and to which front; what was repeated, once. */
    readonly edus: readonly ReceivedEdu[];
  };
  reveal(room: HostedRoom, eventId: EventId): void;
  withhold(room: HostedRoom, eventId: EventId): void;
  /** The first event from another server, past or to come, that the predicate accepts. Rejects after the time. */
  waitForEvent(predicate: (event: Event) => boolean, timeoutMs?: number): Promise<Event>;
  close(): Promise<void>;
}

export interface StateChange {
  readonly type: string;
  readonly stateKey?: string;
  readonly content: JsonObject;
  /** The founder, unless named. */
  readonly sender?: UserId;
}

export async function startResident(options: ResidentOptions = {}): Promise<Resident> {
  const world: World = {
    seed: DEFAULT_ROOM.seed,
    tls: options.tls ?? true,
    verifyRequests: options.verifyRequests ?? true,
    tellsOfJoins: options.tellsOfJoins ?? true,
    rooms: new Map(),
    fronts: [],
    remoteKeys: new Map(),
    deviceLists: new Map(),
    news: new EventEmitter(),
  };
  for (let count = options.fronts ?? 1; count > 0; count--) await openFront(world);
  const [front] = world.fronts;
  if (front === undefined) throw new Error("a resident needs a front");
  const speech = speechOf(world, front);
  return {
    world,
    serverName: front.serverName,
    front,
    fronts: world.fronts,
    founder: FOUNDER,
    hostRoom: (parameters = {}) => hostRoom(world, { ...DEFAULT_ROOM, ...parameters }),
    room: (roomId) => roomNamed(world, roomId),
    fullState: (room) => new Map(stateEntries(currentState(room))),
    joinedMembers: (room) => [...joinedByServer(room, currentState(room)).values()].flat(),
    membership: (room, userId) => membershipIn(room, currentState(room), userId),
    trouble: (trouble, at = front) => makeTrouble(at.switches, trouble),
    clearTrouble: (at = front) => clearTrouble(at.switches),
    ...speech,
    sendEdus: async (to, edus, { origin = front.serverName, pdus = [] } = {}) =>
      await sendEdus(world, { origin, to, edus, pdus }),
    received: {
      get edus() {
        return receivedEdus(world);
      },
    },
    reveal: (room, eventId) => void room.withheld.delete(eventId),
    withhold: (room, eventId) => void room.withheld.add(eventId),
    waitForEvent: async (predicate, timeoutMs = 10_000) => await waitForEvent(world, predicate, timeoutMs),
    close: async () => {
      await Promise.all(world.fronts.map(async (one) => await one.close()));
    },
  };
}

/** The room as it was generated, and then one user of each front joins: their names hold the port of this run. */
function hostRoom(world: World, parameters: RoomParameters): HostedRoom {
  if (parameters.seed !== world.seed) throw new Error(`this resident's keys are of the seed ${world.seed}`);
  const room = roomFor(parameters);
  const open = parameters.joinRule === "public";
  for (const { user } of world.fronts) {
    const member = { type: "m.room.member", stateKey: user } as const;
    if (!open) speak(world, room, { ...member, sender: FOUNDER, content: { membership: "invite" } });
    speak(world, room, { ...member, sender: user, content: { membership: "join", displayname: "Resident" } });
  }
  world.rooms.set(room.roomId, room);
  // Counted now and not while the first join waits for it.
  joinedByServer(room, currentState(room));
  return room;
}

function speak(world: World, room: HostedRoom, draft: Draft): Event {
  const hosted = composeEvent(room, identityIn(world), { originServerTs: Date.now(), ...draft });
  addEvent(room, hosted);
  return hosted.event;
}

function roomNamed(world: World, roomId: RoomId): HostedRoom {
  const room = world.rooms.get(roomId);
  if (room === undefined) throw new Error(`the resident has no room ${roomId}`);
  return room;
}

type Speech = Pick<
  Resident,
  "send" | "sendMessage" | "sendState" | "join" | "leave" | "kick" | "ban" | "invite" | "deliver" | "sendPdus"
>;

function speechOf(world: World, front: Front): Speech {
  const send: Resident["send"] = async (room, draft, sending = {}) => {
    const { push = true, withhold = false, keep = true, origin = front.serverName } = sending;
    const to = sending.to ?? outsideServers(world, room);
    const hosted = composeEvent(room, identityIn(world), {
      originServerTs: Date.now(),
      ...draft,
      ...pick(sending),
    });
    const { event } = hosted;
    addEvent(room, hosted);
    if (withhold) room.withheld.add(event.eventId);
    const results = push ? await deliver(world, { room, eventIds: [event.eventId], to, origin }) : [];
    if (!keep) forget(room, event);
    return { eventId: event.eventId, event, results };
  };
  const setMembership = async (
    room: HostedRoom,
    change: { sender: UserId; userId: UserId; membership: string },
    sending?: Sending,
  ): Promise<Sent> => {
    const { sender, userId, membership } = change;
    const content = membership === "join" ? { membership, displayname: userId.slice(1).split(":")[0] } : { membership };
    return await send(room, { sender, type: "m.room.member", stateKey: userId, content }, sending);
  };
  return {
    send,
    sendMessage: async (room, sender, body, sending) =>
      await send(room, { sender, type: "m.room.message", content: { msgtype: "m.text", body } }, sending),
    sendState: async (room, { type, stateKey = "", content, sender = FOUNDER }, sending) =>
      await send(room, { sender, type, stateKey, content }, sending),
    join: async (room, userId, sending) =>
      await setMembership(room, { sender: userId, userId, membership: "join" }, sending),
    leave: async (room, userId, sending) =>
      await setMembership(room, { sender: userId, userId, membership: "leave" }, sending),
    kick: async (room, userId, sending) =>
      await setMembership(room, { sender: FOUNDER, userId, membership: "leave" }, sending),
    ban: async (room, userId, sending) =>
      await setMembership(room, { sender: FOUNDER, userId, membership: "ban" }, sending),
    invite: async (room, userId, sending = {}) =>
      await invite(world, { room, userId, origin: front.serverName }, sending),
    sendPdus: async (room, pdus, { to = outsideServers(world, room), origin = front.serverName } = {}) =>
      await sendPdus(world, { pdus, to, origin }),
    deliver: async (room, eventIds, { to = outsideServers(world, room), origin = front.serverName } = {}) =>
      await deliver(world, { room, eventIds, to, origin }),
  };
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid */
async function invite(
  world: World,
  { room, userId, origin }: { readonly room: HostedRoom; readonly userId: UserId; readonly origin: ServerName },
  sending: Sending & { readonly by?: UserId },
): Promise<Sent> {
  const draft: Draft = {
    sender: sending.by ?? FOUNDER,
    type: "m.room.member",
    stateKey: userId,
    content: { membership: "invite" },
    originServerTs: Date.now(),
    ...pick(sending),
  };
  const drafted = composeEvent(room, identityIn(world), draft);
  const destination = serverNameOf(userId) ?? "";
  const state = currentState(room);
  const told = ["m.room.create", "m.room.join_rules", "m.room.name"].flatMap(
    (type) => stateEventOf(room, state, [type, ""])?.pdu ?? [],
  );
  const { status, body } = await callServer(world, {
    origin,
    destination,
    method: "PUT",
    uri: paths.invite(room.roomId, drafted.event.eventId),
    content: { room_version: room.rules.version, event: drafted.event.pdu, invite_room_state: told },
  });
  const signed = isJsonObject(body) ? body["event"] : undefined;
  if (status !== 200 || !isJsonObject(signed)) throw new Error(`${destination} refused the invitation: ${status}`);
  const hosted = hostedEvent(room.rules, signed as Pdu, room.roomId);
  const { event } = hosted;
  const { eventId } = event;
  if (eventId !== drafted.event.eventId) throw new Error(`${destination} signed another event`);
  addEvent(room, hosted);
  const to = (sending.to ?? outsideServers(world, room)).filter((server) => server !== destination);
  return { eventId, event, results: await deliver(world, { room, eventIds: [eventId], to, origin }) };
}

function pick({ prevEvents, authEvents, originServerTs, evenIfRejected }: Sending): Partial<Draft> {
  return {
    ...(prevEvents === undefined ? {} : { prevEvents }),
    ...(authEvents === undefined ? {} : { authEvents }),
    ...(originServerTs === undefined ? {} : { originServerTs }),
    ...(evenIfRejected === undefined ? {} : { evenIfRejected }),
  };
}

/** Takes an event out again; its prev_events become extremities as they were. */
function forget(room: HostedRoom, event: Event): void {
  room.events.delete(event.eventId);
  room.states.delete(event.eventId);
  if (!room.extremities.delete(event.eventId)) return;
  for (const prev of event.pdu.prev_events) {
    const id = typeof prev === "string" ? prev : prev[0];
    if (![...room.events.values()].some((one) => refersTo(one.event, id))) room.extremities.add(id);
  }
}

function refersTo(event: Event, prev: EventId): boolean {
  return event.pdu.prev_events.some((edge) => (typeof edge === "string" ? edge : edge[0]) === prev);
}

async function waitForEvent(world: World, predicate: (event: Event) => boolean, timeoutMs: number): Promise<Event> {
  const ours = new Set(world.fronts.map((front) => front.serverName));
  for (const room of world.rooms.values()) {
    for (const { event } of room.events.values()) {
      const server = serverNameOf(event.pdu.sender) ?? "";
      if (!ours.has(server) && !server.endsWith(".rooms.test") && predicate(event)) return event;
    }
  }
  const signal = AbortSignal.timeout(timeoutMs);
  for (;;) {
    const [, event] = (await once(world.news, "event", { signal })) as [HostedRoom, Event];
    if (predicate(event)) return event;
  }
}
