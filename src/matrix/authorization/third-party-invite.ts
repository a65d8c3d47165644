import type { Event } from "../event.ts";
import { isKeyId } from "../identifiers.ts";
import { isJsonObject } from "../json.ts";
import type { JsonObject, JsonValue } from "../json.ts";
import { verifyJsonSignature } from "../signatures.ts";
import { objectProperty, property, stringProperty } from "./content.ts";
import { membershipIn } from "./join-rules.ts";
import type { MembershipChange } from "./membership.ts";
import { allow, reject } from "./verdict.ts";
import type { AuthVerdict } from "./verdict.ts";

const PUBLIC_KEY_BYTES = 32;

/**
 * The rules for an invite that redeems a third-party invite: rule 5.4.1 of room version 12, 5.3.1 of v1–v5. The
 * numbers below are those of version 12; the rules are the same since version 1.
 *
 * @param invite `content.third_party_invite`
 * @see https://spec.matrix.org/v1.19/server-server-api/#third-party-invites
 */
export function checkThirdPartyInvite({ event, target, state }: MembershipChange, invite: JsonValue): AuthVerdict {
  // Rule 5.4.1.1: if the target user is banned, reject.
  if (membershipIn(state, target) === "ban") {
    return reject("membership.invite.third-party.target-banned", `${target} is banned`);
  }
  // Rule 5.4.1.2: if content.third_party_invite does not have a signed property, reject.
  const signed = isJsonObject(invite) ? objectProperty(invite, "signed") : undefined;
  if (signed === undefined) {
    return reject("membership.invite.third-party.no-signed", "the third-party invite has no signed part");
  }
  // Rule 5.4.1.3: if signed does not have mxid and token properties, reject.
  const mxid = stringProperty(signed, "mxid");
  const token = stringProperty(signed, "token");
  if (mxid === undefined || token === undefined) {
    return reject("membership.invite.third-party.incomplete", "the signed part lacks mxid or token");
  }
  // Rule 5.4.1.4: if mxid does not match state_key, reject.
  if (mxid !== target) {
    return reject("membership.invite.third-party.other-user", `the signed part names ${mxid}, not ${target}`);
  }
  // Rule 5.4.1.5: if there is no m.room.third_party_invite event in the state whose state_key is the token, reject.
  const original = state("m.room.third_party_invite", token);
  if (original === undefined) {
    return reject("membership.invite.third-party.unknown-token", "no third-party invite has this token");
  }
  // Rule 5.4.1.6: if sender does not match sender of the m.room.third_party_invite, reject.
  if (event.pdu.sender !== original.pdu.sender) {
    return reject("membership.invite.third-party.other-sender", `the invite was made by ${original.pdu.sender}`);
  }
  // Rule 5.4.1.7: if any signature in signed matches any public key in the m.room.third_party_invite event, allow.
  if (isSignedByAny(signed, publicKeysOf(original))) {
    return allow("membership.invite.third-party");
  }
  // Rule 5.4.1.8: otherwise, reject.
  return reject("membership.invite.third-party.signature", "no signature matches a key of the invite");
}

/** `public_key` and each `public_key` of `public_keys`; what is no Ed25519 key is passed over. */
function publicKeysOf({ pdu: { content } }: Event): readonly Uint8Array[] {
  const list = property(content, "public_keys");
  const encoded = [
    stringProperty(content, "public_key"),
    ...(Array.isArray(list) ? list : []).map((entry: JsonValue) =>
      isJsonObject(entry) ? stringProperty(entry, "public_key") : undefined,
    ),
  ];
  return encoded
    .filter((key) => key !== undefined)
    .map((key) => Buffer.from(key, "base64"))
    .filter((key) => key.length === PUBLIC_KEY_BYTES);
}

function isSignedByAny(signed: JsonObject, publicKeys: readonly Uint8Array[]): boolean {
  const signatures = objectProperty(signed, "signatures") ?? {};
  for (const [server, byKey] of Object.entries(signatures)) {
    const keyIds = isJsonObject(byKey) ? Object.keys(byKey).filter(isKeyId) : [];
    for (const keyId of keyIds) {
      if (keyId.startsWith("ed25519:") && publicKeys.some((key) => verifyJsonSignature(signed, server, keyId, key))) {
        return true;
      }
    }
  }
  return false;
}
