import { MatrixError } from "../../federation-api/matrix-error.ts";
import { isUserId, serverNameOf, type UserId } from "../../matrix/identifiers.ts";
import { isJsonObject, stringifyJson, type JsonObject } from "../../matrix/json.ts";
import {
  loadCrossSigningKeys,
  storeCrossSigningKeys,
  storeKeySignatures,
  type CrossSigningKeys,
  type KeySignature,
  type KeyUsage,
} from "../../storage/cross-signing-keys.ts";
import type { Connection } from "../../storage/database.ts";
import { announceDeviceChanges, noteForClients, type DevicesContext } from "./announce-device-changes.ts";
import { cachedKeys, keysOfOurUsers } from "./known-keys.ts";
import { publicKeyOf } from "./signed-keys.ts";
import { commit } from "../failpoints.ts";

const USAGES: readonly KeyUsage[] = ["master", "self_signing", "user_signing"];

/**
 * Whether an upload changes what the user has, so that they must prove who they are: the first keys and a repeated
 * upload need no proof.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload
 */
export async function replacesSigningKeys(
  ctx: DevicesContext,
  userId: UserId,
  keys: CrossSigningKeys,
): Promise<boolean> {
  const held = (await loadCrossSigningKeys(ctx.database.pool, [userId])).get(userId);
  return held?.master !== undefined && USAGES.some((usage) => differs(held[usage], keys[usage]));
}

function differs(held: JsonObject | undefined, uploaded: JsonObject | undefined): boolean {
  return uploaded !== undefined && (held === undefined || stringifyJson(held) !== stringifyJson(uploaded));
}

/**
 * Takes a user's cross-signing keys, and tells whoever shares a room with them.
 *
 * @throws MatrixError 400 M_INVALID_PARAM for a key that is not the user's or not for this use, M_MISSING_PARAM
 *   without a master key
 */
export async function uploadSigningKeys(ctx: DevicesContext, userId: UserId, keys: CrossSigningKeys): Promise<void> {
  for (const usage of USAGES) checkKey(userId, usage, keys[usage]);
  await commit(ctx, "store signing keys", async (tx) => {
    const held = (await loadCrossSigningKeys(tx, [userId])).get(userId) ?? {};
    if (keys.master === undefined && held.master === undefined) {
      throw new MatrixError(400, "M_MISSING_PARAM", "There is no master key");
    }
    if (!USAGES.some((usage) => differs(held[usage], keys[usage]))) return;
    await storeCrossSigningKeys(tx, userId, keys);
    await announceDeviceChanges(ctx, tx, { userId, changed: [null] });
  });
}

function checkKey(userId: UserId, usage: KeyUsage, key: JsonObject | undefined): void {
  if (key === undefined) return;
  const { usage: usages, keys } = key;
  const fits = Array.isArray(usages) && usages.includes(usage) && key["user_id"] === userId;
  if (fits && isJsonObject(keys) && Object.keys(keys).length === 1 && publicKeyOf(key) !== undefined) return;
  throw new MatrixError(400, "M_INVALID_PARAM", `${usage}_key: not one key of ${userId} for this use`);
}

/** By user and then by device id or public key, the object with its new signatures. */
export type SignaturesUpload = ReadonlyMap<UserId, Readonly<Record<string, JsonObject>>>;

interface Sorted {
  readonly signatures: readonly KeySignature[];
  readonly failures: Readonly<Record<string, JsonObject>>;
  /** What of the signer's own is signed anew: device ids, null for the cross-signing keys. */
  readonly changed: ReadonlySet<string | null>;
  readonly others: ReadonlySet<UserId>;
}

/**
 * Takes signatures that a user has put under keys: of their own devices and master key, which everyone is shown, and
 * of others' master keys, which only the user is shown.
 *
 * @returns what could not be taken, by user and key
 * @see https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload
 */
export async function uploadSignatures(
  ctx: DevicesContext,
  signer: UserId,
  upload: SignaturesUpload,
): Promise<Readonly<Record<string, JsonObject>>> {
  return await commit(ctx, "store signatures", async (tx) => {
    const sorted = await sortSignatures(ctx, tx, { signer, upload });
    await storeKeySignatures(tx, sorted.signatures);
    for (const other of sorted.others) await noteForClients(tx, other);
    const changed = [...sorted.changed];
    if (changed.length > 0) await announceDeviceChanges(ctx, tx, { userId: signer, changed });
    return sorted.failures;
  });
}

async function sortSignatures(
  ctx: DevicesContext,
  tx: Connection,
  { signer, upload }: { readonly signer: UserId; readonly upload: SignaturesUpload },
): Promise<Sorted> {
  const signatures: KeySignature[] = [];
  const failures: Record<string, JsonObject> = {};
  const changed = new Set<string | null>();
  const others = new Set<UserId>();
  for (const [targetUserId, objects] of upload) {
    const targets = await targetsOf(ctx, tx, { signer, target: targetUserId });
    for (const [targetKey, signed] of Object.entries(objects)) {
      const target = targets.get(targetKey);
      const fresh = target === undefined ? [] : signaturesBy(signer, signed);
      if (fresh.length === 0) {
        failures[targetUserId] = { ...failures[targetUserId], [targetKey]: failureOf(target) };
        continue;
      }
      signatures.push(...fresh.map((one) => ({ ...one, targetUserId, targetKey, signerUserId: signer })));
      if (targetUserId === signer) changed.add(target === "device" ? targetKey : null);
      else others.add(targetUserId);
    }
  }
  return { signatures, failures, changed, others };
}

function failureOf(target: "device" | "key" | undefined): JsonObject {
  return target === undefined
    ? { errcode: "M_NOT_FOUND", error: "There is no such key that you could sign" }
    : { errcode: "M_INVALID_SIGNATURE", error: "It holds no signature of yours" };
}

/** What a user may sign, by the id that names it: all of their own, of others the master key. */
async function targetsOf(
  ctx: DevicesContext,
  tx: Connection,
  { signer, target }: { readonly signer: UserId; readonly target: UserId },
): Promise<ReadonlyMap<string, "device" | "key">> {
  if (!isUserId(target)) return new Map();
  const isOurs = serverNameOf(target) === ctx.serverName;
  const known = (isOurs ? await keysOfOurUsers(tx, [target]) : await cachedKeys(tx, [target], signer)).get(target);
  const { master, self_signing, user_signing } = known?.crossSigning ?? {};
  const keys = target === signer ? [master, self_signing, user_signing] : [master];
  const publicKeys = keys.flatMap((key) => (key === undefined ? [] : (publicKeyOf(key) ?? [])));
  const devices = target === signer ? (known?.devices ?? []) : [];
  return new Map([
    ...devices.map(({ deviceId }) => [deviceId, "device"] as const),
    ...publicKeys.map((key) => [key, "key"] as const),
  ]);
}

function signaturesBy(
  signer: UserId,
  signed: JsonObject,
): readonly { readonly signerKeyId: string; readonly signature: string }[] {
  const all = signed["signatures"];
  const own = isJsonObject(all) ? all[signer] : undefined;
  return Object.entries(isJsonObject(own) ? own : {}).flatMap(([signerKeyId, signature]) =>
    typeof signature === "string" && !signerKeyId.includes("\0") && !signature.includes("\0")
      ? [{ signerKeyId, signature }]
      : [],
  );
}
