import { z } from "zod";
import type { JsonObject, JsonValue } from "../matrix/json.ts";
import { claimKeys } from "../rooms/devices/claim-keys.ts";
import { replacesSigningKeys, uploadSignatures, uploadSigningKeys } from "../rooms/devices/cross-signing.ts";
import { deviceListNews } from "../rooms/devices/device-list-news.ts";
import { queryKeys } from "../rooms/devices/query-keys.ts";
import { uploadKeys } from "../rooms/devices/upload-keys.ts";
import { parseSyncToken } from "../rooms/read/sync-token.ts";
import type { CrossSigningKeys } from "../storage/cross-signing-keys.ts";
import type { NamedKey } from "../storage/device-keys.ts";
import type { ClientApiContext } from "./context.ts";
import { byUser, jsonObject, parseBody, parseParam, storableText, userId } from "./request-body.ts";
import { userRoute } from "./route.ts";
import type { AuthenticatedRequest } from "./route.ts";
import { requirePassword } from "./user-interactive-auth.ts";

/** The name of a key, its algorithm and id; the key itself, signed or not. */
const namedKeys = z.record(
  storableText.regex(/^[^:]+:.+$/, "expected an algorithm, a colon, and an id"),
  z.union([z.string(), jsonObject]),
);
const signatures = z.record(z.string(), z.record(z.string(), z.string()));
const deviceKeys = z.looseObject({
  user_id: z.string(),
  device_id: z.string(),
  algorithms: z.array(z.string()),
  keys: z.record(z.string(), z.string()),
  signatures,
});
const uploadBody = z.object({
  device_keys: deviceKeys.optional(),
  one_time_keys: namedKeys.optional(),
  fallback_keys: namedKeys.optional(),
});

const DEFAULT_TIMEOUT_MS = 10_000;
const MAX_TIMEOUT_MS = 60_000;
const timeout = z.int().min(0).default(DEFAULT_TIMEOUT_MS);

const queryBody = z.object({ device_keys: z.record(userId, z.array(z.string())), timeout });
const claimBody = z.object({ one_time_keys: z.record(userId, z.record(storableText, storableText)), timeout });

const signingKey = z.looseObject({
  user_id: z.string(),
  usage: z.array(z.string()),
  keys: z.record(z.string(), z.string()),
  signatures: signatures.optional(),
});
const signingKeysBody = z.object({
  master_key: signingKey.optional(),
  self_signing_key: signingKey.optional(),
  user_signing_key: signingKey.optional(),
});
const signaturesBody = z.record(userId, z.record(z.string(), jsonObject));

/** @see https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption */
export const keysRoutes = [
  userRoute("POST /_matrix/client/v3/keys/upload", upload),
  userRoute("POST /_matrix/client/v3/keys/query", async (ctx, request) => {
    const body = parseBody(request, queryBody);
    const wanted = byUser(body.device_keys);
    return queryKeys(ctx, { viewer: request.requester.userId, wanted, timeoutMs: patience(body.timeout) });
  }),
  userRoute("POST /_matrix/client/v3/keys/claim", async (ctx, request) => {
    const body = parseBody(request, claimBody);
    return claimKeys(ctx, byUser(body.one_time_keys), patience(body.timeout));
  }),
  userRoute("GET /_matrix/client/v3/keys/changes", changes),
  userRoute("POST /_matrix/client/v3/keys/device_signing/upload", uploadCrossSigning),
  userRoute("POST /_matrix/client/v3/keys/signatures/upload", async (ctx, request) => {
    const body = parseBody(request, signaturesBody);
    return { failures: await uploadSignatures(ctx, request.requester.userId, byUser(body)) };
  }),
];

async function upload(ctx: ClientApiContext, request: AuthenticatedRequest): Promise<JsonObject> {
  const body = parseBody(request, uploadBody);
  const counts = await uploadKeys(ctx, request.requester, {
    deviceKeys: body.device_keys as JsonObject | undefined,
    oneTimeKeys: keysNamed(body.one_time_keys ?? {}),
    fallbackKeys: keysNamed(body.fallback_keys ?? {}),
  });
  return { one_time_key_counts: { ...counts } };
}

function keysNamed(keys: Readonly<Record<string, JsonValue>>): readonly NamedKey[] {
  return Object.entries(keys).map(([name, key]) => {
    const colon = name.indexOf(":");
    return { algorithm: name.slice(0, colon), keyId: name.slice(colon + 1), key };
  });
}

function patience(timeoutMs: number): number {
  return Math.min(timeoutMs, MAX_TIMEOUT_MS);
}

async function changes(ctx: ClientApiContext, request: AuthenticatedRequest): Promise<JsonObject> {
  const token = (name: string): bigint =>
    parseSyncToken(parseParam(name, request.query.get(name) ?? undefined, z.string()));
  return { ...(await deviceListNews(ctx, request.requester.userId, { from: token("from"), to: token("to") })) };
}

async function uploadCrossSigning(ctx: ClientApiContext, request: AuthenticatedRequest): Promise<JsonObject> {
  const body = parseBody(request, signingKeysBody);
  const { userId: owner } = request.requester;
  const keys = {
    ...(body.master_key === undefined ? {} : { master: body.master_key }),
    ...(body.self_signing_key === undefined ? {} : { self_signing: body.self_signing_key }),
    ...(body.user_signing_key === undefined ? {} : { user_signing: body.user_signing_key }),
  } as CrossSigningKeys;
  if (await replacesSigningKeys(ctx, owner, keys)) await requirePassword(ctx, request);
  await uploadSigningKeys(ctx, owner, keys);
  return {};
}
