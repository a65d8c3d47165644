import type { EventEmitter } from "node:events";
import type { KeyId, RoomId, ServerName } from "../../src/matrix/identifiers.ts";
import type { KeyLookup, SigningKey, VerifyKey } from "../../src/matrix/signatures.ts";
import type { DeviceLists } from "./device-lists.ts";
import type { Front } from "./front.ts";
import { currentState, joinedByServer } from "./hosted-room.ts";
import type { HostedRoom } from "./hosted-room.ts";
import { identityOf, isVirtualServer, verifyKeyOf } from "./identities.ts";

/** Everything the fronts of one resident share. */
export interface World {
  readonly seed: string;
  readonly tls: boolean;
  /** Whether the X-Matrix header of requests is checked. */
  readonly verifyRequests: boolean;
  /** Whether the other servers in a room hear at once from the resident who joined by it. */
  readonly tellsOfJoins: boolean;
  readonly rooms: Map<RoomId, HostedRoom>;
  readonly fronts: Front[];
  /** Keys of servers that are not ours, as they gave them. */
  readonly remoteKeys: Map<ServerName, ReadonlyMap<KeyId, VerifyKey>>;
  /** Of the resident's users, as far as a test has given them devices. */
  readonly deviceLists: DeviceLists;
  /** `event` with (room, event) for each that came from another server. */
  readonly news: EventEmitter;
}

export function isOurs(world: World, server: ServerName): boolean {
  return isVirtualServer(server) || world.fronts.some((front) => front.serverName === server);
}

/** The signing key of one of our servers. */
export function identityIn(world: World): (server: ServerName) => SigningKey {
  return (server) => {
    if (!isOurs(world, server)) throw new Error(`${server} is not a server of the resident`);
    return identityOf(world.seed, server);
  };
}

export function keyLookupOf(world: World): KeyLookup {
  return (server, keyId) => {
    if (!isOurs(world, server)) return world.remoteKeys.get(server)?.get(keyId);
    const key = identityOf(world.seed, server);
    return key.keyId === keyId ? verifyKeyOf(key) : undefined;
  };
}

export function roomOf(world: World, roomId: RoomId): HostedRoom | undefined {
  return world.rooms.get(roomId);
}

/** The servers in the room that are not ours: those that events are sent to. */
export function outsideServers(world: World, room: HostedRoom): ServerName[] {
  return [...joinedByServer(room, currentState(room)).keys()].filter((server) => !isOurs(world, server)).toSorted();
}
