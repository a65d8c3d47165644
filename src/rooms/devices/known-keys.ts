import type { UserId } from "../../matrix/identifiers.ts";
import { isJsonObject, type JsonObject } from "../../matrix/json.ts";
import { loadDeviceKeys } from "../../storage/device-keys.ts";
import {
  loadCrossSigningKeys,
  loadKeySignatures,
  type CrossSigningKeys,
  type KeySignature,
} from "../../storage/cross-signing-keys.ts";
import type { Connection } from "../../storage/database.ts";
import { loadRemoteDevices } from "../../storage/remote-device-lists.ts";
import { publicKeyOf, withSignatures } from "./signed-keys.ts";

export interface KnownDevice {
  readonly deviceId: string;
  readonly displayName: string | null;
  readonly keys: JsonObject;
}

/** What can be known of a user to encrypt to them. */
export interface KnownKeys {
  /** Those with keys, in the order of their ids. */
  readonly devices: readonly KnownDevice[];
  readonly crossSigning: CrossSigningKeys;
}

interface HeldDevice extends KnownDevice {
  readonly userId: UserId;
}

/** The keys of our users, with the signatures that they themselves and `viewer` have put under them. */
export async function keysOfOurUsers(
  c: Connection,
  userIds: readonly UserId[],
  viewer?: UserId,
): Promise<ReadonlyMap<UserId, KnownKeys>> {
  return signedKeys(c, { userIds, devices: await loadDeviceKeys(c, userIds), viewer });
}

/** The keys of other servers' users as they were last told. */
export async function cachedKeys(
  c: Connection,
  userIds: readonly UserId[],
  viewer: UserId,
): Promise<ReadonlyMap<UserId, KnownKeys>> {
  return signedKeys(c, { userIds, devices: await loadRemoteDevices(c, userIds), viewer });
}

async function signedKeys(
  c: Connection,
  held: {
    readonly userIds: readonly UserId[];
    readonly devices: readonly HeldDevice[];
    readonly viewer: UserId | undefined;
  },
): Promise<ReadonlyMap<UserId, KnownKeys>> {
  const crossSigning = await loadCrossSigningKeys(c, held.userIds);
  const signatures = await loadKeySignatures(c, held.userIds, held.viewer);
  return new Map(
    held.userIds.map((userId) => {
      const own = signatures.filter((one) => one.targetUserId === userId);
      const devices = held.devices.filter((one) => one.userId === userId);
      return [
        userId,
        {
          devices: devices.map((device) => ({
            ...device,
            keys: withSignatures(
              device.keys,
              own.filter((one) => one.targetKey === device.deviceId),
            ),
          })),
          crossSigning: signedCrossSigningKeys(crossSigning.get(userId) ?? {}, own),
        },
      ];
    }),
  );
}

function signedCrossSigningKeys(keys: CrossSigningKeys, signatures: readonly KeySignature[]): CrossSigningKeys {
  return Object.fromEntries(
    Object.entries(keys).map(([usage, key]) => {
      const publicKey = publicKeyOf(key);
      return [
        usage,
        withSignatures(
          key,
          signatures.filter((one) => one.targetKey === publicKey),
        ),
      ];
    }),
  );
}

/** The keys as users of the same server and their clients are shown them: with the device's name. */
export function keysWithName({ keys, displayName }: KnownDevice): JsonObject {
  if (displayName === null) return keys;
  const unsigned = keys["unsigned"];
  return { ...keys, unsigned: { ...(isJsonObject(unsigned) ? unsigned : {}), device_display_name: displayName } };
}
