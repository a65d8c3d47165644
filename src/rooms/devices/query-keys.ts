import { FederationFailure } from "../../federation-client/failures.ts";
import { isJsonObject, type JsonObject, type JsonValue } from "../../matrix/json.ts";
import type { ServerName, UserId } from "../../matrix/identifiers.ts";
import type { CrossSigningKeys } from "../../storage/cross-signing-keys.ts";
import { freshRemoteDeviceLists } from "../../storage/remote-device-lists.ts";
import type { RoomsContext } from "../context.ts";
import { askServers, byServer, type KeyFailures, type NoteFailure } from "./foreign-keys.ts";
import { cachedKeys, keysOfOurUsers, keysWithName, type KnownKeys } from "./known-keys.ts";
import { refreshDeviceList } from "./refresh-device-list.ts";

/** By user, the ids of the devices that are wanted, or none for all. */
type WantedDevices = ReadonlyMap<UserId, readonly string[]>;

export interface KeysQuery {
  readonly viewer: UserId;
  readonly wanted: WantedDevices;
  /** For each other server. */
  readonly timeoutMs: number;
}

/** What is shown of users, by user: a device's keys by its id. */
interface ShownKeys {
  readonly devices: Readonly<Record<UserId, Readonly<Record<string, JsonObject>>>>;
  readonly crossSigning: ReadonlyMap<UserId, CrossSigningKeys>;
}

/**
 * The keys of users' devices. Of users who share a room with one of ours it is the list that we hold, if it is fresh;
 * their servers are asked for the others' keys.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
 */
export async function queryKeys(ctx: RoomsContext, query: KeysQuery): Promise<JsonObject> {
  const servers = byServer(query.wanted);
  const ours: WantedDevices = servers.get(ctx.serverName) ?? new Map();
  servers.delete(ctx.serverName);
  const local = await keysOfOurUsers(ctx.database.pool, [...ours.keys()], query.viewer);
  const { answers, failures } = await askServers(servers, async (server, wanted, note) =>
    keysFrom(ctx, { ...query, server, wanted, note }),
  );
  return answerOf(query.viewer, [shown(local, ours), ...answers], failures);
}

function answerOf(viewer: UserId, parts: readonly ShownKeys[], failures: KeyFailures): JsonObject {
  const crossSigning = parts.flatMap((part) => [...part.crossSigning]);
  const ofUsage = (usage: keyof CrossSigningKeys): JsonObject =>
    Object.fromEntries(crossSigning.flatMap(([userId, keys]) => (keys[usage] ? [[userId, keys[usage]]] : [])));
  const own = crossSigning.find(([userId]) => userId === viewer)?.[1].user_signing;
  return {
    device_keys: Object.assign({}, ...parts.map((part) => part.devices)) as JsonObject,
    master_keys: ofUsage("master"),
    self_signing_keys: ofUsage("self_signing"),
    user_signing_keys: own === undefined ? {} : { [viewer]: own },
    failures,
  };
}

function shown(known: ReadonlyMap<UserId, KnownKeys>, wanted: WantedDevices): ShownKeys {
  const devices = [...known].map(([userId, keys]) => {
    const ids = wanted.get(userId) ?? [];
    const chosen = keys.devices.filter(({ deviceId }) => ids.length === 0 || ids.includes(deviceId));
    return [userId, Object.fromEntries(chosen.map((device) => [device.deviceId, keysWithName(device)]))];
  });
  return {
    devices: Object.fromEntries(devices) as ShownKeys["devices"],
    crossSigning: new Map([...known].map(([userId, keys]) => [userId, keys.crossSigning])),
  };
}

interface ServerQuery extends KeysQuery {
  readonly server: ServerName;
  readonly note: NoteFailure;
}

/** Lists that are not held and fresh are fetched so many at a time. */
const FETCHED_AT_ONCE = 5;

async function keysFrom(ctx: RoomsContext, query: ServerQuery): Promise<ShownKeys> {
  const { pool } = ctx.database;
  const users = [...query.wanted.keys()];
  const fresh = await freshRemoteDeviceLists(pool, users);
  const fetched = await fetchLists(
    ctx,
    query,
    users.filter((userId) => !fresh.has(userId)),
  );
  const cached = shown(await cachedKeys(pool, [...fresh, ...fetched.held], query.viewer), query.wanted);
  const others = new Map([...query.wanted].filter(([userId]) => fetched.unshared.has(userId)));
  if (others.size === 0) return cached;
  const asked = await askFor(ctx, { ...query, wanted: others });
  return {
    devices: { ...cached.devices, ...asked.devices },
    crossSigning: new Map([...cached.crossSigning, ...asked.crossSigning]),
  };
}

interface FetchedLists {
  readonly held: ReadonlySet<UserId>;
  /** Of users who share no room with us nothing is held, since nobody would tell us of changes. */
  readonly unshared: ReadonlySet<UserId>;
}

/** A server in trouble is not asked for the rest of its users. */
async function fetchLists(ctx: RoomsContext, query: ServerQuery, users: readonly UserId[]): Promise<FetchedLists> {
  const { timeoutMs, note } = query;
  const held = new Set<UserId>();
  const unshared = new Set<UserId>();
  let inTrouble = false;
  const fetchOne = async (userId: UserId): Promise<void> => {
    try {
      const isHeld = await refreshDeviceList(ctx, userId, { timeoutMs });
      (isHeld ? held : unshared).add(userId);
    } catch (error) {
      if (!(error instanceof FederationFailure)) throw error;
      note(error);
      inTrouble ||= error.kind !== "refused";
    }
  };
  for (let start = 0; start < users.length && !inTrouble; start += FETCHED_AT_ONCE) {
    await Promise.all(users.slice(start, start + FETCHED_AT_ONCE).map(fetchOne));
  }
  return { held, unshared };
}

async function askFor(ctx: RoomsContext, { server, wanted, timeoutMs }: ServerQuery): Promise<ShownKeys> {
  const answer = await ctx.federation.queryUserKeys(server, Object.fromEntries(wanted), { timeoutMs });
  const users = [...wanted.keys()];
  return {
    devices: Object.fromEntries(
      users.flatMap((userId) => {
        const devices = objectIn(answer["device_keys"], userId);
        return devices === undefined ? [] : [[userId, devicesOf(userId, devices)]];
      }),
    ) as ShownKeys["devices"],
    crossSigning: new Map(
      users.map((userId) => [
        userId,
        {
          ...keyIn("master", answer["master_keys"], userId),
          ...keyIn("self_signing", answer["self_signing_keys"], userId),
        },
      ]),
    ),
  };
}

/** Keys that name another user or device are not that device's. */
function devicesOf(userId: UserId, devices: JsonObject): Record<string, JsonObject> {
  return Object.fromEntries(
    Object.entries(devices).flatMap(([deviceId, keys]) =>
      isJsonObject(keys) && keys["user_id"] === userId && keys["device_id"] === deviceId ? [[deviceId, keys]] : [],
    ),
  );
}

function objectIn(group: JsonValue | undefined, userId: UserId): JsonObject | undefined {
  const value = isJsonObject(group) ? group[userId] : undefined;
  return isJsonObject(value) ? value : undefined;
}

function keyIn(usage: "master" | "self_signing", group: JsonValue | undefined, userId: UserId): CrossSigningKeys {
  const key = objectIn(group, userId);
  return key === undefined || key["user_id"] !== userId ? {} : { [usage]: key };
}
