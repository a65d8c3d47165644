import { canonicalJsonWithout } from "./canonical-json.ts";
import type { CanonicalJsonMode } from "./canonical-json.ts";
import { isSignedBy, keyPairFromSeed, PUBLIC_KEY_BYTES, SIGNATURE_BYTES, signBytes } from "./ed25519.ts";
import { originServerTsOf } from "./event.ts";
import type { Event, Pdu } from "./event.ts";
import { canonicalModeOf, contentHash, redactedText } from "./hashes.ts";
import { isKeyId, isUserId, serverNameOf } from "./identifiers.ts";
import type { EventId, KeyId, ServerName } from "./identifiers.ts";
import { isJsonObject } from "./json.ts";
import type { JsonObject, JsonValue } from "./json.ts";
import { redact } from "./redaction.ts";
import type { RoomVersionRules } from "./room-versions.ts";

/** Ed25519; `secretKey` is libsodium's 64 bytes, seed and public key. */
export interface SigningKey {
  readonly keyId: KeyId;
  readonly secretKey: Uint8Array;
  readonly publicKey: Uint8Array;
}

/** A server's public key (32 bytes). Times are milliseconds; a key with `expiredTs` serves events up to then only. */
export interface VerifyKey {
  readonly publicKey: Uint8Array;
  readonly validUntilTs: number;
  readonly expiredTs?: number;
}

export type KeyLookup = (server: ServerName, keyId: KeyId) => VerifyKey | undefined;

type SignatureVerdict =
  | { readonly valid: true }
  | {
      readonly valid: false;
      readonly server: ServerName;
      readonly reason: string;
      /** Keys that the lookup did not know, or whose validity may have been extended: they might still prove the event. */
      readonly missingKeys?: readonly KeyId[];
    };

const NOT_SIGNED = new Set(["signatures", "unsigned"]);

/** @param seed 32 bytes. */
export function signingKeyFromSeed(keyId: KeyId, seed: Uint8Array): SigningKey {
  return { keyId, ...keyPairFromSeed(seed) };
}

function signedBytes(object: JsonObject, mode: CanonicalJsonMode): Buffer {
  return Buffer.from(canonicalJsonWithout(object, NOT_SIGNED, mode), "utf8");
}

function sign(message: Buffer, key: SigningKey): string {
  return signBytes(message, key.secretKey).toString("base64").replace(/=+$/, "");
}

function verify(message: Buffer, signature: string, publicKey: Uint8Array): boolean {
  return isSignedBy(publicKey, Buffer.from(signature, "base64"), message);
}

function withSignature(object: JsonObject, serverName: ServerName, keyId: KeyId, signature: string): JsonObject {
  const signatures = ownObject(object, "signatures") ?? {};
  const ofServer = ownObject(signatures, serverName) ?? {};
  return { ...object, signatures: { ...signatures, [serverName]: { ...ofServer, [keyId]: signature } } };
}

/** A member that is an object; own members only, since servers choose the keys. */
function ownObject(object: JsonObject, key: string): JsonObject | undefined {
  const value = Object.hasOwn(object, key) ? object[key] : undefined;
  return isJsonObject(value) ? value : undefined;
}

/**
 * Adds our signature beside those that are there. Numbers are signed as they are written: a request may carry events
 * of room versions 1 to 5, and an object that has a strict canonical form has the same lax one.
 *
 * @throws {CanonicalJsonError} where the object has no canonical form.
 * @see https://spec.matrix.org/v1.19/appendices/#signing-json
 */
export function signJson(object: JsonObject, serverName: ServerName, key: SigningKey): JsonObject {
  return withSignature(object, serverName, key.keyId, sign(signedBytes(object, "lax"), key));
}

/**
 * False where the signature is absent, malformed or wrong, or the object has no canonical form.
 *
 * @see https://spec.matrix.org/v1.19/appendices/#checking-for-a-signature
 */
export function verifyJsonSignature(
  object: JsonObject,
  serverName: ServerName,
  keyId: KeyId,
  publicKey: Uint8Array,
): boolean {
  const signature = signaturesOf(object, serverName).find(([id]) => id === keyId)?.[1];
  if (signature === undefined) return false;
  const message = tryBytes(object, "lax");
  return message !== undefined && verify(message, signature, publicKey);
}

function tryBytes(object: JsonObject, mode: CanonicalJsonMode): Buffer | undefined {
  try {
    return signedBytes(object, mode);
  } catch {
    return undefined;
  }
}

/** A server's Ed25519 signatures; other algorithms are passed over, as the specification asks. */
function signaturesOf(object: JsonObject, server: ServerName): readonly (readonly [KeyId, string])[] {
  const ofServer = ownObject(ownObject(object, "signatures") ?? {}, server) ?? {};
  return Object.entries(ofServer).filter(isEd25519Signature);
}

function isEd25519Signature(entry: readonly [string, JsonValue | undefined]): entry is [KeyId, string] {
  return entry[0].startsWith("ed25519:") && isKeyId(entry[0]) && typeof entry[1] === "string";
}

/**
 * Signs the redacted form of an event that has its hashes, so that the signature outlives a redaction.
 *
 * @throws {CanonicalJsonError} where the event has no canonical form.
 * @see https://spec.matrix.org/v1.19/server-server-api/#signing-events
 */
export function signEvent(pdu: Pdu, serverName: ServerName, key: SigningKey, rules: RoomVersionRules): Pdu {
  const signature = sign(signedBytes(redact(pdu, rules), canonicalModeOf(rules)), key);
  return withSignature(pdu, serverName, key.keyId, signature) as Pdu;
}

/** Gives an event that we made its content hash, then our signature. */
export function hashAndSignEvent(
  pduWithoutHashes: Pdu,
  serverName: ServerName,
  key: SigningKey,
  rules: RoomVersionRules,
): Pdu {
  const hashes = { sha256: contentHash(pduWithoutHashes, rules) };
  return signEvent({ ...pduWithoutHashes, hashes }, serverName, key, rules);
}

/**
 * Whose signatures an event needs: the sender's server, but for an invite that came out of a third-party invite, which
 * another server may have sent; v1–v2: the server that made up the event id; v8 on: the server of the user who let
 * somebody into a restricted room.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events
 */
export function requiredSigners(pdu: Pdu, rules: RoomVersionRules, eventId: EventId): readonly ServerName[] {
  const signers = new Set<ServerName>();
  const membership = pdu.type === "m.room.member" ? pdu.content["membership"] : undefined;
  const byThirdParty = membership === "invite" && pdu.content["third_party_invite"] !== undefined;
  if (!byThirdParty) signers.add(serverNameOf(pdu.sender) ?? "");
  if (rules.eventIdFormat === "chosen-by-sender") signers.add(serverNameOf(eventId) ?? "");
  if (rules.restrictedJoins && membership === "join") {
    const authorisedBy = pdu.content["join_authorised_via_users_server"];
    if (isUserId(authorisedBy)) signers.add(serverNameOf(authorisedBy) ?? "");
  }
  return [...signers];
}

/**
 * Checks every required signature over the redacted event. Of each server one that holds is enough, whatever stands
 * beside it.
 */
export function verifyEventSignatures(
  pdu: Pdu,
  rules: RoomVersionRules,
  eventId: EventId,
  keys: KeyLookup,
): SignatureVerdict {
  if (namesNobodyAsAuthorising(pdu, rules)) {
    return { valid: false, server: "", reason: "join_authorised_via_users_server is not a user id" };
  }
  const message = tryBytes(redact(pdu, rules), canonicalModeOf(rules));
  for (const server of requiredSigners(pdu, rules, eventId)) {
    if (message === undefined) return { valid: false, server, reason: "the event has no canonical JSON" };
    const verdict = verifySignaturesOf(server, { pdu, rules, message, keys });
    if (!verdict.valid) return verdict;
  }
  return { valid: true };
}

/** A signature to be checked over a text, by whoever has the time. */
export interface SignatureCheck {
  readonly text: string;
  /** 64 bytes. */
  readonly signature: Uint8Array;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
}

/**
 * The one check on which all hangs: that of nearly every event, which one server signed once, by a key that is known.
 * Where it fails, or there is none, {@link verifyEventSignatures} has the say.
 *
 * @param text the event's `redactedText`, where the caller has it
 */
export function onlySignatureCheck(
  { eventId, pdu }: Pick<Event, "eventId" | "pdu">,
  rules: RoomVersionRules,
  keys: KeyLookup,
  text = redactedText(pdu, rules),
): SignatureCheck | undefined {
  const [server, another] = requiredSigners(pdu, rules, eventId);
  if (server === undefined || another !== undefined || namesNobodyAsAuthorising(pdu, rules)) return undefined;
  const [only, other] = signaturesOf(pdu, server);
  if (only === undefined || other !== undefined) return undefined;
  const key = keys(server, only[0]);
  if (key === undefined || !wasValidAt(key, { pdu, rules })) return undefined;
  const signature = Buffer.from(only[1], "base64");
  const { publicKey } = key;
  if (signature.length !== SIGNATURE_BYTES || publicKey.length !== PUBLIC_KEY_BYTES) return undefined;
  return { text, signature, publicKey };
}

/** v8 on: the key asks for one more signature, so if it names nobody who could have signed, the event is unproved. */
function namesNobodyAsAuthorising(pdu: Pdu, rules: RoomVersionRules): boolean {
  if (!rules.restrictedJoins || pdu.type !== "m.room.member" || pdu.content["membership"] !== "join") return false;
  const authorisedBy = pdu.content["join_authorised_via_users_server"];
  return authorisedBy !== undefined && !isUserId(authorisedBy);
}

interface SignedEvent {
  readonly pdu: Pdu;
  readonly rules: RoomVersionRules;
  readonly message: Buffer;
  readonly keys: KeyLookup;
}

function verifySignaturesOf(server: ServerName, signed: SignedEvent): SignatureVerdict {
  const signatures = signaturesOf(signed.pdu, server);
  if (signatures.length === 0) return { valid: false, server, reason: `no signature of ${server}` };
  const missingKeys: KeyId[] = [];
  let reason = `no key of ${server} is known`;
  for (const [keyId, signature] of signatures) {
    const key = signed.keys(server, keyId);
    if (key === undefined) missingKeys.push(keyId);
    else if (!wasValidAt(key, signed)) {
      reason = `the key ${keyId} of ${server} was not valid when the event was made`;
      // Its server may have promised a longer time since we asked.
      if (key.expiredTs === undefined) missingKeys.push(keyId);
    } else if (verify(signed.message, signature, key.publicKey)) return { valid: true };
    else reason = `the signature of ${server} by ${keyId} is wrong`;
  }
  return { valid: false, server, reason, ...(missingKeys.length > 0 ? { missingKeys } : {}) };
}

/** v5 on: a key counts for events made while it was valid. v1–v4 take any key the server ever had. */
function wasValidAt(key: VerifyKey, signed: Pick<SignedEvent, "pdu" | "rules">): boolean {
  if (!signed.rules.enforceKeyValidity) return true;
  return originServerTsOf(signed.pdu) <= (key.expiredTs ?? key.validUntilTs);
}
