import { MatrixError } from "../../federation-api/matrix-error.ts";
import { powerLevelOf, requiredLevel } from "../../matrix/authorization/levels.ts";
import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { rulesOf, type RoomVersion, type RoomVersionRules } from "../../matrix/room-versions.ts";
import { splitStateKey, stateEntries } from "../../matrix/state.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { membershipOf } from "../../storage/memberships.ts";
import { moveAliases } from "../../storage/room-aliases.ts";
import { forwardExtremities, loadRoom } from "../../storage/rooms.ts";
import { loadState, snapshotMembers } from "../../storage/state-snapshots.ts";
import { createEvent } from "../events/create-event.ts";
import { loadManyEvents } from "../events/load-many-events.ts";
import { waitForFullState, type ReadContext } from "../read/full-state-wait.ts";
import { powerStateOf, type PowerState } from "../read/power-state.ts";
import { createRoom } from "./create-room.ts";
import type { InitialStateEvent } from "./initial-room-events.ts";
import { closedPowerLevels, upgradedPowerLevels } from "./upgraded-power-levels.ts";

interface RoomToUpgrade {
  readonly roomId: RoomId;
  readonly userId: UserId;
  readonly version: RoomVersion;
  /** From room version 12 on. */
  readonly additionalCreators: readonly UserId[];
  /** Ends the wait for the full state. */
  readonly signal?: AbortSignal;
}

const CANONICAL_ALIAS = "m.room.canonical_alias";

/** What a replacement takes over, beside power levels, bans, the room's main alias and a space's children. */
const TRANSFERRED: ReadonlySet<string> = new Set([
  "m.room.server_acl",
  "m.room.encryption",
  "m.room.name",
  "m.room.avatar",
  "m.room.topic",
  "m.room.guest_access",
  "m.room.history_visibility",
  "m.room.join_rules",
]);

/**
 * Replaces a room by a new one of another version, which has the old one's settings, power levels, bans and local
 * aliases, and closes the old one with a tombstone.
 *
 * Waits for the full state of a partially joined room: whoever is banned from the old room must not get into the new
 * one because we did not know of it yet, and a ban that is copied late is no ban.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidupgrade
 * @throws FullStateMissing; MatrixError 403 M_FORBIDDEN where the user may not set a tombstone
 */
export async function upgradeRoom(ctx: ReadContext, upgrade: RoomToUpgrade): Promise<RoomId> {
  const { roomId, userId, version } = upgrade;
  await requireTombstonePower(ctx, upgrade);
  await waitForFullState(ctx, roomId, upgrade.signal);
  const old = await requireTombstonePower(ctx, upgrade);
  const rules = rulesOf(version);
  if (rules === undefined) throw new MatrixError(400, "M_UNSUPPORTED_ROOM_VERSION", `${version} is not known`);
  const state = await stateToCopy(ctx, upgrade, old);
  const creators = [userId, ...upgrade.additionalCreators] as const;
  const bans = state.bans.filter(({ stateKey }) => !creators.some((creator) => creator === stateKey));
  const levels = upgradedPowerLevels(old, rules, { creators, banned: bans.map(({ stateKey }) => stateKey) });
  const replacement = await createRoom(ctx, userId, {
    version,
    preset: "private_chat",
    invite: [],
    isDirect: false,
    initialState: [
      ...state.transferred,
      ...bans,
      ...(levels.last === undefined ? [] : [{ type: "m.room.power_levels", stateKey: "", content: levels.last }]),
    ],
    creationContent: await creationContent(ctx, upgrade, { old, rules }),
    powerLevelOverride: {},
    powerLevels: levels.first,
  });
  await moveAliases(ctx.database.pool, roomId, replacement);
  await closeRoom(ctx, upgrade, { old, replacement, canonicalAlias: state.canonicalAlias });
  return replacement;
}

async function requireTombstonePower(ctx: ReadContext, { roomId, userId }: RoomToUpgrade): Promise<PowerState> {
  const member = await membershipOf(ctx.database.pool, roomId, userId);
  const power = member?.membership === "join" ? await powerStateOf(ctx, roomId) : undefined;
  if (power === undefined) throw new MatrixError(403, "M_FORBIDDEN", `You are not in the room ${roomId}`);
  const needed = requiredLevel({ type: "m.room.tombstone", state_key: "" }, power.state, power.rules);
  if (powerLevelOf(userId, power.state, power.rules) >= needed) return power;
  throw new MatrixError(403, "M_FORBIDDEN", "You may not upgrade the room: it takes the power to set its tombstone");
}

interface StateToCopy {
  readonly transferred: readonly InitialStateEvent[];
  readonly bans: readonly InitialStateEvent[];
  readonly canonicalAlias: JsonObject | undefined;
}

async function stateToCopy(ctx: ReadContext, { roomId }: RoomToUpgrade, old: PowerState): Promise<StateToCopy> {
  const { pool } = ctx.database;
  const snapshotId = (await loadRoom(pool, roomId))?.currentSnapshotId ?? null;
  if (snapshotId === null) throw new MatrixError(404, "M_NOT_FOUND", `This server is not in room ${roomId}`);
  const isSpace = old.state("m.room.create", "")?.pdu.content["type"] === "m.space";
  const wanted = (type: string, stateKey: string): boolean =>
    stateKey === "" ? TRANSFERRED.has(type) || type === CANONICAL_ALIAS : isSpace && type === "m.space.child";
  const settings = [...stateEntries(await loadState(ctx.database, snapshotId))].filter(([key]) =>
    wanted(...splitStateKey(key)),
  );
  const banned = (await snapshotMembers(pool, snapshotId)).filter(({ membership }) => membership === "ban");
  const events = await loadManyEvents(pool, [...settings.map(([, id]) => id), ...banned.map(({ eventId }) => eventId)]);
  const copies = events.map(({ pdu }) => ({ type: pdu.type, stateKey: pdu.state_key ?? "", content: pdu.content }));
  return {
    transferred: copies.filter(({ type }) => type !== CANONICAL_ALIAS && type !== "m.room.member"),
    bans: copies.filter(({ type }) => type === "m.room.member"),
    canonicalAlias: copies.find(({ type }) => type === CANONICAL_ALIAS)?.content,
  };
}

/** The room's type and the like go over; the new version says by itself what is in it. */
async function creationContent(
  ctx: ReadContext,
  { roomId, additionalCreators }: RoomToUpgrade,
  { old, rules }: { readonly old: PowerState; readonly rules: RoomVersionRules },
): Promise<JsonObject> {
  const {
    room_version: _version,
    creator: _creator,
    additional_creators: _creators,
    predecessor: _predecessor,
    ...kept
  } = old.state("m.room.create", "")?.pdu.content ?? {};
  const [latest] = await forwardExtremities(ctx.database.pool, roomId);
  // Since specification 1.16 the event is no longer named: from version 12 on the tombstone can't come first.
  const event = rules.roomIdIsCreateEventHash || latest === undefined ? {} : { event_id: latest };
  return {
    ...kept,
    predecessor: { room_id: roomId, ...event },
    ...(additionalCreators.length === 0 ? {} : { additional_creators: additionalCreators }),
  };
}

interface Replacement {
  readonly old: PowerState;
  readonly replacement: RoomId;
  readonly canonicalAlias: JsonObject | undefined;
}

async function closeRoom(
  ctx: ReadContext,
  { roomId, userId }: RoomToUpgrade,
  { old, replacement, canonicalAlias }: Replacement,
): Promise<void> {
  const state = (type: string, content: JsonObject) => ({ sender: userId, type, stateKey: "", content });
  if (canonicalAlias !== undefined) {
    await ifAllowed(ctx, () => createEvent(ctx, { roomId, ...state(CANONICAL_ALIAS, {}) }));
    const named = state(CANONICAL_ALIAS, canonicalAlias);
    await ifAllowed(ctx, () => createEvent(ctx, { roomId: replacement, ...named }));
  }
  const tombstone = { body: "This room has been replaced", replacement_room: replacement };
  await createEvent(ctx, { roomId, ...state("m.room.tombstone", tombstone) });
  const closed = closedPowerLevels(old);
  if (closed !== undefined) {
    await ifAllowed(ctx, () => createEvent(ctx, { roomId, ...state("m.room.power_levels", closed) }));
  }
}

/** What is good to have but not needed for an upgrade: a room may ask for more power than its upgrader has. */
async function ifAllowed(ctx: ReadContext, step: () => Promise<StoredEvent>): Promise<void> {
  try {
    await step();
  } catch (error) {
    if (!(error instanceof MatrixError)) throw error;
    ctx.logger.info({ reason: error.message }, "a step of a room's upgrade was refused");
  }
}
