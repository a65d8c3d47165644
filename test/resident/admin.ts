import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { EventId, RoomId, UserId } from "../../src/matrix/identifiers.ts";
import type { JsonValue } from "../../src/matrix/json.ts";
import { stateEntries } from "../../src/matrix/state.ts";
import { authChain, currentState, eventOf, joinedByServer } from "./hosted-room.ts";
import type { Front } from "./front.ts";
import type { Resident, Sending, Sent, StateChange } from "./resident.ts";
import type { Draft } from "./compose-event.ts";
import type { DeliveryResult } from "./deliver.ts";
import type { RoomParameters } from "./room-parameters.ts";
import type { Trouble } from "./trouble.ts";

/** What another process may ask of a resident: plain JSON in and out. */
export interface AdminCommands {
  hostRoom(parameters: Partial<RoomParameters>): RoomSummary;
  room(roomId: RoomId): RoomSummary;
  /** Entries of (state key as src/matrix/state.ts writes it, event id). */
  fullState(roomId: RoomId): readonly (readonly [string, EventId])[];
  joinedMembers(roomId: RoomId): readonly UserId[];
  membership(roomId: RoomId, userId: UserId): string | null;
  trouble(trouble: Trouble, front?: number): null;
  clearTrouble(front?: number): null;
  send(roomId: RoomId, draft: Draft, sending?: Sending): Promise<Sent>;
  sendMessage(roomId: RoomId, sender: UserId, body: string, sending?: Sending): Promise<Sent>;
  sendState(roomId: RoomId, change: StateChange, sending?: Sending): Promise<Sent>;
  join(roomId: RoomId, userId: UserId, sending?: Sending): Promise<Sent>;
  leave(roomId: RoomId, userId: UserId, sending?: Sending): Promise<Sent>;
  kick(roomId: RoomId, userId: UserId, sending?: Sending): Promise<Sent>;
  ban(roomId: RoomId, userId: UserId, sending?: Sending): Promise<Sent>;
  invite(roomId: RoomId, userId: UserId, sending?: Sending): Promise<Sent>;
  sendPdus(roomId: RoomId, pdus: readonly JsonValue[], sending?: Sending): Promise<readonly DeliveryResult[]>;
  deliver(roomId: RoomId, eventIds: readonly EventId[], sending?: Sending): Promise<readonly DeliveryResult[]>;
  reveal(roomId: RoomId, eventId: EventId): null;
  withhold(roomId: RoomId, eventId: EventId): null;
  has(roomId: RoomId, eventId: EventId): boolean;
  requests(front?: number): Front["requests"];
  transactions(front?: number): Front["transactions"];
  stopListening(front?: number): Promise<null>;
  listen(front?: number): Promise<null>;
}

export interface RoomSummary {
  readonly roomId: RoomId;
  readonly version: string;
  readonly founder: UserId;
  readonly events: number;
  readonly stateEvents: number;
  /** The state's events and those of its auth chain: what a server must have that joins. */
  readonly eventsToKnow: number;
  readonly joinedMembers: number;
  readonly joinedServers: number;
}

function summaryOf(resident: Resident, roomId: RoomId): RoomSummary {
  const room = resident.room(roomId);
  const state = currentState(room);
  const ids = [...stateEntries(state)].map(([, eventId]) => eventId);
  const joined = joinedByServer(room, state);
  return {
    roomId,
    version: room.rules.version,
    founder: resident.founder,
    events: room.events.size,
    stateEvents: state.size,
    eventsToKnow: new Set([...ids, ...authChain(room, ids)]).size,
    joinedMembers: [...joined.values()].reduce((sum, users) => sum + users.length, 0),
    joinedServers: joined.size,
  };
}

export function adminCommands(resident: Resident): AdminCommands {
  const front = (index = 0): Front => {
    const found = resident.fronts[index];
    if (found === undefined) throw new Error(`no front ${index}`);
    return found;
  };
  const room = (roomId: RoomId): ReturnType<Resident["room"]> => resident.room(roomId);
  return {
    hostRoom: (parameters) => summaryOf(resident, resident.hostRoom(parameters).roomId),
    room: (roomId) => summaryOf(resident, roomId),
    fullState: (roomId) => [...resident.fullState(room(roomId))],
    joinedMembers: (roomId) => resident.joinedMembers(room(roomId)),
    membership: (roomId, userId) => resident.membership(room(roomId), userId) ?? null,
    trouble: (trouble, at) => {
      resident.trouble(trouble, front(at));
      return null;
    },
    clearTrouble: (at) => {
      resident.clearTrouble(front(at));
      return null;
    },
    send: async (roomId, draft, sending) => await resident.send(room(roomId), draft, sending),
    sendMessage: async (roomId, sender, body, sending) =>
      await resident.sendMessage(room(roomId), sender, body, sending),
    sendState: async (roomId, change, sending) => await resident.sendState(room(roomId), change, sending),
    join: async (roomId, userId, sending) => await resident.join(room(roomId), userId, sending),
    leave: async (roomId, userId, sending) => await resident.leave(room(roomId), userId, sending),
    kick: async (roomId, userId, sending) => await resident.kick(room(roomId), userId, sending),
    ban: async (roomId, userId, sending) => await resident.ban(room(roomId), userId, sending),
    invite: async (roomId, userId, sending) => await resident.invite(room(roomId), userId, sending),
    sendPdus: async (roomId, pdus, sending) => await resident.sendPdus(room(roomId), pdus, sending),
    deliver: async (roomId, eventIds, sending) => await resident.deliver(room(roomId), eventIds, sending),
    reveal: (roomId, eventId) => {
      resident.reveal(room(roomId), eventId);
      return null;
    },
    withhold: (roomId, eventId) => {
      resident.withhold(room(roomId), eventId);
      return null;
    },
    has: (roomId, eventId) => eventOf(room(roomId), eventId) !== undefined,
    requests: (at) => front(at).requests,
    transactions: (at) => front(at).transactions,
    stopListening: async (at) => {
      await front(at).close();
      return null;
    },
    listen: async (at) => {
      await front(at).listen();
      return null;
    },
  };
}

/**
 * Serves the commands on a free loopback port: POST `{"command", "parameters": […]}`, answered by `{"result"}` or
 * `{"error"}`.
 *
 * @returns the address
 */
export async function startAdmin(resident: Resident): Promise<string> {
  const commands = adminCommands(resident) as unknown as Record<string, (...parameters: unknown[]) => unknown>;
  const server = createServer((request, response) => {
    const answer = async (): Promise<unknown> => {
      let text = "";
      for await (const chunk of request.setEncoding("utf8")) text += String(chunk);
      const { command, parameters } = JSON.parse(text) as { command: string; parameters: unknown[] };
      const run = commands[command];
      if (run === undefined) throw new Error(`no command ${command}`);
      // What was left out in the middle of the parameters arrives as null.
      return await run(...parameters.map((one) => (one === null ? undefined : one)));
    };
    void answer().then(
      (result) => response.end(JSON.stringify({ result: result ?? null })),
      (error: unknown) =>
        response.end(JSON.stringify({ error: error instanceof Error ? error.message : String(error) })),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
