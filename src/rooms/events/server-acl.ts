import { isIPv4 } from "node:net";
import type { RoomId, ServerName } from "../../matrix/identifiers.ts";
import { isJsonArray } from "../../matrix/json.ts";
import type { JsonObject, JsonValue } from "../../matrix/json.ts";
import { stateGet } from "../../matrix/state.ts";
import { loadEvent } from "../../storage/events.ts";
import { loadRoom } from "../../storage/rooms.ts";
import { lookUpInSnapshot, stateAtHand } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";

/** Why a PDU of a server was dropped that the list shuts out. */
export const BANNED_BY_ACL = "the server is banned from the room by its ACL";

/**
 * Whether the room's `m.room.server_acl`, as its current state has it, lets a server take part. A room that we don't
 * know shuts nobody out.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#server-access-control-lists-acls
 */
export async function isServerAllowed(ctx: RoomsContext, roomId: RoomId, server: ServerName): Promise<boolean> {
  const room = await loadRoom(ctx.database.pool, roomId);
  return await isServerAllowedInState(ctx, room?.currentSnapshotId ?? null, server);
}

/** The same for a state of the room. */
export async function isServerAllowedInState(
  ctx: RoomsContext,
  snapshotId: bigint | null,
  server: ServerName,
): Promise<boolean> {
  if (snapshotId === null) return true;
  const { pool } = ctx.database;
  const state = stateAtHand(ctx.database, snapshotId);
  const eventId =
    state === undefined
      ? await lookUpInSnapshot(pool, snapshotId, "m.room.server_acl", "")
      : stateGet(state, "m.room.server_acl", "");
  const acl = eventId === undefined ? undefined : await loadEvent(pool, eventId);
  return acl === undefined || serverAllowedByAcl(acl.pdu.content, server);
}

/**
 * The rule of `m.room.server_acl`: IP literals first, then `deny`, then `allow`; what neither names is denied. The port
 * is ignored. Entries that are no strings, and lists that are no lists, count as absent.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#mroomserver_acl
 */
export function serverAllowedByAcl(content: JsonObject, server: ServerName): boolean {
  const host = server.replace(/:[0-9]+$/, "").toLowerCase();
  if (content["allow_ip_literals"] === false && isIpLiteral(host)) return false;
  if (globsOf(content["deny"]).some((glob) => matchesGlob(glob, host))) return false;
  return globsOf(content["allow"]).some((glob) => matchesGlob(glob, host));
}

function isIpLiteral(host: string): boolean {
  return host.startsWith("[") || isIPv4(host);
}

function globsOf(list: JsonValue | undefined): readonly string[] {
  if (!isJsonArray(list)) return [];
  return list.filter((entry) => typeof entry === "string").map((entry) => entry.toLowerCase());
}

/**
 * `*` stands for any run of characters, `?` for one. No regular expression: the room's moderators write the globs, and
 * a backtracking one could keep us busy for minutes.
 */
function matchesGlob(glob: string, text: string): boolean {
  let at = 0;
  let inGlob = 0;
  let star = -1;
  let resumeAt = 0;
  while (at < text.length) {
    const wanted = glob[inGlob];
    if (wanted === "*") {
      star = inGlob++;
      resumeAt = at;
    } else if (wanted === "?" || wanted === text[at]) {
      inGlob++;
      at++;
    } else if (star >= 0) {
      inGlob = star + 1;
      at = ++resumeAt;
    } else {
      return false;
    }
  }
  while (glob[inGlob] === "*") inGlob++;
  return inGlob === glob.length;
}
