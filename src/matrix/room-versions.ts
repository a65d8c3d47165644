/**
 * The one table of what room versions change. Algorithms ask a named flag, never "version >= 8".
 *
 * @see https://spec.matrix.org/v1.19/rooms/
 */

export const ROOM_VERSIONS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"] as const;
export type RoomVersion = (typeof ROOM_VERSIONS)[number];

export interface RoomVersionRules {
  readonly version: RoomVersion;

  /** v1–v2: `$opaque:domain`, chosen by the sender; v3: reference hash in base64; v4 on: URL-safe base64. */
  readonly eventIdFormat: "chosen-by-sender" | "base64" | "url-safe-base64";
  /** v1–v2: edges are `[id, hashes]` pairs. */
  readonly edgesCarryHashes: boolean;
  /** v12 on: the room id is `!` and the hash of the create event, which is itself in no `auth_events`. */
  readonly roomIdIsCreateEventHash: boolean;
  /** v6 on: integers within ±(2^53 − 1) only; before, numbers are hashed as they were written. */
  readonly strictCanonicalJson: boolean;
  /** v6 on: 2^53 − 1; before, 2^63 − 1. */
  readonly maxDepth: bigint;

  readonly stateResolution: "v1" | "v2" | "v2.1";
  /** v5 on: a signature counts only if its key was valid at the event's `origin_server_ts`. */
  readonly enforceKeyValidity: boolean;

  /** v1–v2: redactions are authorised by the auth rules; v3 on, when both events are known. */
  readonly redactionAuthRule: boolean;
  /** v1–v5: `m.room.aliases` has an auth rule of its own and keeps `aliases` when redacted. */
  readonly aliasesAreSpecial: boolean;
  /** v6 on: changes of the `notifications` of power levels are checked. */
  readonly checkNotificationLevels: boolean;
  /** v7 on. */
  readonly knocking: boolean;
  /** v8 on. */
  readonly restrictedJoins: boolean;
  /** v10 on. */
  readonly knockRestricted: boolean;
  /** v10 on: power levels are integers; before, strings of digits count too. */
  readonly integerPowerLevels: boolean;
  /** v11 on: the creator is the create event's sender; before, `content.creator`. */
  readonly creatorIsSender: boolean;
  /** v12 on: creators outrank every number and may not stand in `users`; `additional_creators` is read. */
  readonly privilegedCreators: boolean;

  readonly redaction: RedactionRules;
}

/** @see https://spec.matrix.org/v1.19/client-server-api/#redactions */
export interface RedactionRules {
  /** v8 on. */
  readonly keepJoinRulesAllow: boolean;
  /** v9 on. */
  readonly keepJoinAuthorisedVia: boolean;
  /** v1–v10: top-level `origin`, `membership` and `prev_state` stay. */
  readonly keepObsoleteTopLevelKeys: boolean;
  /** v11 on: the whole content of the create event stays. */
  readonly keepCreateContent: boolean;
  /** v11 on: `redacts` of a redaction's content stays (and the redacted event is named there). */
  readonly redactsInContent: boolean;
  /** v11 on: `invite` of power levels stays. */
  readonly keepPowerLevelsInvite: boolean;
  /** v11 on: `third_party_invite.signed` of a membership stays. */
  readonly keepThirdPartyInviteSigned: boolean;
  /** v1–v5. */
  readonly keepAliases: boolean;
}

const V1: RoomVersionRules = {
  version: "1",
  eventIdFormat: "chosen-by-sender",
  edgesCarryHashes: true,
  roomIdIsCreateEventHash: false,
  strictCanonicalJson: false,
  maxDepth: 2n ** 63n - 1n,
  stateResolution: "v1",
  enforceKeyValidity: false,
  redactionAuthRule: true,
  aliasesAreSpecial: true,
  checkNotificationLevels: false,
  knocking: false,
  restrictedJoins: false,
  knockRestricted: false,
  integerPowerLevels: false,
  creatorIsSender: false,
  privilegedCreators: false,
  redaction: {
    keepJoinRulesAllow: false,
    keepJoinAuthorisedVia: false,
    keepObsoleteTopLevelKeys: true,
    keepCreateContent: false,
    redactsInContent: false,
    keepPowerLevelsInvite: false,
    keepThirdPartyInviteSigned: false,
    keepAliases: true,
  },
};
const V2: RoomVersionRules = { ...V1, version: "2", stateResolution: "v2" };
const V3: RoomVersionRules = {
  ...V2,
  version: "3",
  eventIdFormat: "base64",
  edgesCarryHashes: false,
  redactionAuthRule: false,
};
const V4: RoomVersionRules = { ...V3, version: "4", eventIdFormat: "url-safe-base64" };
const V5: RoomVersionRules = { ...V4, version: "5", enforceKeyValidity: true };
const V6: RoomVersionRules = {
  ...V5,
  version: "6",
  strictCanonicalJson: true,
  maxDepth: 2n ** 53n - 1n,
  aliasesAreSpecial: false,
  checkNotificationLevels: true,
  redaction: { ...V5.redaction, keepAliases: false },
};
const V7: RoomVersionRules = { ...V6, version: "7", knocking: true };
const V8: RoomVersionRules = {
  ...V7,
  version: "8",
  restrictedJoins: true,
  redaction: { ...V7.redaction, keepJoinRulesAllow: true },
};
const V9: RoomVersionRules = { ...V8, version: "9", redaction: { ...V8.redaction, keepJoinAuthorisedVia: true } };
const V10: RoomVersionRules = { ...V9, version: "10", knockRestricted: true, integerPowerLevels: true };
const V11: RoomVersionRules = {
  ...V10,
  version: "11",
  creatorIsSender: true,
  redaction: {
    ...V10.redaction,
    keepObsoleteTopLevelKeys: false,
    keepCreateContent: true,
    redactsInContent: true,
    keepPowerLevelsInvite: true,
    keepThirdPartyInviteSigned: true,
  },
};
const V12: RoomVersionRules = {
  ...V11,
  version: "12",
  roomIdIsCreateEventHash: true,
  stateResolution: "v2.1",
  privilegedCreators: true,
};

const RULES: ReadonlyMap<string, RoomVersionRules> = new Map(
  [V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12].map((rules) => [rules.version, rules]),
);

/** The rules of a room version, or undefined for one that we don't know. */
export function rulesOf(version: string): RoomVersionRules | undefined {
  return RULES.get(version);
}
