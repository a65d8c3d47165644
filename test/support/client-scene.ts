import type { ClientApiContext } from "../../src/client-api/context.ts";
import type { EventId, UserId } from "../../src/matrix/identifiers.ts";
import { isJsonObject, type JsonObject } from "../../src/matrix/json.ts";
import type { HostedRoom } from "../resident/hosted-room.ts";
import { currentState, stateEventOf } from "../resident/hosted-room.ts";
import type { Resident, ResidentOptions } from "../resident/resident.ts";
import type { RoomParameters } from "../resident/room-parameters.ts";
import { driveResync } from "./drive-resync.ts";
import { startLoopbackClientApi, type LoopbackClientApi, type TestClient } from "./loopback-client.ts";
import { openScene, type Scene } from "./scene.ts";

const key = encodeURIComponent;

/** A room of the resident's that one of our users has joined, its state partial. */
export interface EnteredRoom {
  readonly room: HostedRoom;
  readonly client: TestClient;
  readonly joinEventId: EventId;
  /** A path of the client API in the room. */
  at(rest: string): string;
  complete(): Promise<void>;
}

/** A resident and a sidecar beside it whose client API is open, all in this process. */
export interface ClientScene extends Scene {
  readonly api: LoopbackClientApi;
  /** A new user of ours. */
  aUser(): Promise<TestClient>;
  hostRoom(parameters?: Partial<RoomParameters>): HostedRoom;
  joinVia(client: TestClient, room: HostedRoom): Promise<void>;
  /** A new user enters a new room, with this power level. */
  enter(options?: { readonly power?: number; readonly room?: Partial<RoomParameters> }): Promise<EnteredRoom>;
}

export async function openClientScene(
  options: ResidentOptions & { readonly client?: Partial<ClientApiContext> } = {},
): Promise<ClientScene> {
  const scene = await openScene(options);
  const { resident, sidecar } = scene;
  const api = await startLoopbackClientApi(scene.database, { ...sidecar.ctx, ...options.client });
  let users = 0;
  let rooms = 0;
  const aUser: ClientScene["aUser"] = async () => {
    users += 1;
    return await api.register(`user${users}`);
  };
  const hostRoom: ClientScene["hostRoom"] = (parameters = {}) => {
    rooms += 1;
    return resident.hostRoom({ members: 20, label: `room ${rooms}`, ...parameters });
  };
  const joinVia: ClientScene["joinVia"] = async (client, room) => {
    await client.ok("POST", `join/${key(room.roomId)}`, { query: { via: resident.serverName } });
  };
  return {
    ...scene,
    api,
    aUser,
    hostRoom,
    joinVia,
    enter: async ({ power, room: parameters } = {}) => {
      const room = hostRoom(parameters);
      const client = await aUser();
      if (power !== undefined) await empower(resident, room, { [client.userId]: power });
      await joinVia(client, room);
      const joinEventId = sidecar.wanted.findLast((one) => one.roomId === room.roomId)?.joinEventId;
      if (joinEventId === undefined) throw new Error("the join asked for no resync");
      return {
        room,
        client,
        joinEventId,
        at: (rest) => `rooms/${key(room.roomId)}/${rest}`,
        complete: async () => {
          const end = await driveResync(sidecar.ctx, room.roomId, joinEventId);
          if (end !== "completed") throw new Error(`the resync ended as ${end}`);
        },
      };
    },
  };
}

/** Gives users of the room power, as its founder. */
export async function empower(
  resident: Resident,
  room: HostedRoom,
  levels: Readonly<Record<UserId, number>>,
): Promise<void> {
  const content = stateEventOf(room, currentState(room), ["m.room.power_levels", ""])?.pdu.content ?? {};
  const users: JsonObject = isJsonObject(content["users"]) ? content["users"] : {};
  await resident.sendState(room, {
    type: "m.room.power_levels",
    content: { ...content, users: { ...users, ...levels } },
  });
}

/** Users of other servers with this membership in the room, in the order of their names. */
export function remoteUsers(resident: Resident, room: HostedRoom, membership: string): readonly UserId[] {
  const users: UserId[] = [];
  for (const stateKey of [...resident.fullState(room).keys()].toSorted()) {
    const [type, user] = stateKey.split("\u001f") as [string, UserId];
    if (type !== "m.room.member" || !user.startsWith("@member-")) continue;
    if (resident.membership(room, user) === membership) users.push(user);
  }
  return users;
}
