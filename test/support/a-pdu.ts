import type { Pdu } from "../../src/matrix/event.ts";
import { hashAndSignEvent, signingKeyFromSeed } from "../../src/matrix/signatures.ts";
import type { KeyLookup, SigningKey } from "../../src/matrix/signatures.ts";
import { ROOM_VERSIONS, rulesOf } from "../../src/matrix/room-versions.ts";
import type { RoomVersion, RoomVersionRules } from "../../src/matrix/room-versions.ts";

export function rulesFor(version: RoomVersion): RoomVersionRules {
  const rules = rulesOf(version);
  if (rules === undefined) throw new Error(`no rules for room version ${version}`);
  return rules;
}

export const ALL_RULES: readonly RoomVersionRules[] = ROOM_VERSIONS.map(rulesFor);

/** The key of the server `example.org` in tests. */
export const TEST_KEY: SigningKey = signingKeyFromSeed("ed25519:test", Buffer.alloc(32, 7));

export const TEST_KEYS: KeyLookup = (server, keyId) =>
  server === "example.org" && keyId === TEST_KEY.keyId
    ? { publicKey: TEST_KEY.publicKey, validUntilTs: Number.MAX_SAFE_INTEGER }
    : undefined;

/** A message of `@alice:example.org` in the form of the room version, neither hashed nor signed. */
export function aPdu(rules: RoomVersionRules, changes: Partial<Pdu> | Record<string, unknown> = {}): Pdu {
  const ids = ["a", "b", "c"].map((name) => (rules.edgesCarryHashes ? `$${name}:example.org` : `$${name.repeat(43)}`));
  const edges = ids.map((id) => (rules.edgesCarryHashes ? [id, { sha256: "x".repeat(43) }] : id));
  return {
    type: "m.room.message",
    room_id: rules.roomIdIsCreateEventHash ? `!${"r".repeat(43)}` : "!room:example.org",
    sender: "@alice:example.org",
    content: { msgtype: "m.text", body: "Hello" },
    depth: 12,
    origin_server_ts: 1_700_000_000_000,
    prev_events: edges.slice(0, 1),
    auth_events: edges,
    ...(rules.eventIdFormat === "chosen-by-sender" ? { event_id: "$message:example.org" } : {}),
    ...changes,
  } as unknown as Pdu;
}

/** {@link aPdu} with its content hash and the signature of `example.org`. */
export function aSignedPdu(rules: RoomVersionRules, changes: Partial<Pdu> | Record<string, unknown> = {}): Pdu {
  return hashAndSignEvent(aPdu(rules, changes), "example.org", TEST_KEY, rules);
}
