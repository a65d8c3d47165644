import { expect } from "vitest";
import type { EventId, ServerName } from "../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../src/matrix/json.ts";
import { joinRoom } from "../../src/rooms/join/join-room.ts";
import type { Front } from "../resident/front.ts";
import type { HostedRoom } from "../resident/hosted-room.ts";
import { deviceKeysOf } from "./device-keys.ts";
import { driveResync } from "./drive-resync.ts";
import { startLoopbackClientApi } from "./loopback-client.ts";
import type { Body, LoopbackClientApi, TestClient } from "./loopback-client.ts";
import { openScene, type Scene } from "./scene.ts";

interface EnteredRoom {
  readonly room: HostedRoom;
  readonly joinEventId: EventId;
  complete(): Promise<void>;
}

/** A resident of three servers, and a sidecar whose users act over the client API. */
export interface DeviceScene extends Scene {
  readonly api: LoopbackClientApi;
  readonly fronts: readonly [Front, Front, Front];
  /** A new user of ours with one device. */
  aUser(): Promise<TestClient>;
  /** A partial room; the hidden servers are not in the list that came with the join. */
  enter(
    client: TestClient,
    hidden?: readonly ServerName[],
    before?: (room: HostedRoom) => Promise<unknown>,
  ): Promise<EnteredRoom>;
  uploadKeys(client: TestClient, mark?: string): Promise<void>;
  /** The contents of the EDUs of a type that one of the resident's servers was sent about a user, or by one. */
  edusAt(front: Front, type: string, userId: string): readonly JsonObject[];
  /** Sends one EDU to the sidecar. */
  tell(from: Front, type: string, content: JsonObject): Promise<void>;
  /** Waits until all EDUs on the lists of the resident's servers have come there. */
  delivered(): Promise<void>;
  /** The keys that a client is shown of a user's devices, by device. */
  devicesSeen(client: TestClient, userId: string): Promise<Body>;
}

export async function openDeviceScene(): Promise<DeviceScene> {
  const scene = await openScene({ fronts: 3 });
  const { database, resident, sidecar } = scene;
  const api = await startLoopbackClientApi(database, sidecar.ctx);
  const [first, second, third] = resident.fronts;
  if (first === undefined || second === undefined || third === undefined) throw new Error("three fronts are needed");
  let users = 0;
  let members = 300;
  return {
    ...scene,
    api,
    fronts: [first, second, third],
    aUser: async () => {
      users += 1;
      return await api.register(`user${users}`);
    },
    enter: async ({ userId }, hidden = [], before = async () => undefined) => {
      members += 1;
      const room = resident.hostRoom({ members });
      const { roomId } = room;
      await before(room);
      const lies = hidden.map((server) =>
        resident.trouble({ kind: "lie", lie: "hide-server", server, at: "send_join" }),
      );
      const joined = await joinRoom(sidecar.ctx, { userId, roomId, via: [resident.serverName] });
      for (const end of lies) end();
      expect(joined.partial).toBe(true);
      const joinEventId = joined.eventId;
      const complete = async (): Promise<void> => {
        expect(await driveResync(sidecar.ctx, roomId, joinEventId)).toBe("completed");
      };
      return { room, joinEventId, complete };
    },
    uploadKeys: async (client, mark = "1") => {
      await client.ok("POST", "keys/upload", { body: { device_keys: deviceKeysOf(client, mark) } });
    },
    edusAt: (front, type, userId) =>
      resident.received.edus
        .filter((edu) => edu.to === front.serverName && edu.type === type)
        .map(({ content }) => content)
        .filter((content) => content["user_id"] === userId || content["sender"] === userId),
    tell: async (from, type, content) => {
      const sending = { origin: from.serverName };
      const [result] = await resident.sendEdus([sidecar.serverName], [{ edu_type: type, content }], sending);
      expect(result).toMatchObject({ status: 200 });
    },
    delivered: async () => {
      const names = resident.fronts.map((front) => front.serverName);
      const count = async (): Promise<number> => {
        const left = await database.pool.query(`SELECT 1 FROM outbox_edus WHERE destination = ANY ($1)`, [names]);
        return left.rows.length;
      };
      await expect.poll(count).toBe(0);
    },
    devicesSeen: async (client, userId) => {
      const answer = await client.ok("POST", "keys/query", { body: { device_keys: { [userId]: [] }, timeout: 5000 } });
      return answer.device_keys[userId];
    },
  };
}
