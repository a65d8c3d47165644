import { MatrixError } from "../../federation-api/matrix-error.ts";
import { powerLevelOf, requiredLevel } from "../../matrix/authorization/levels.ts";
import { serverNameOf, type RoomId, type UserId } from "../../matrix/identifiers.ts";
import { loadEvent } from "../../storage/events.ts";
import { membershipOf, type Member } from "../../storage/memberships.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import { waitForFullState, type ReadContext } from "../read/full-state-wait.ts";
import { powerStateOf } from "../read/power-state.ts";

export interface Removal {
  readonly roomId: RoomId;
  readonly sender: UserId;
  /** Who is to be taken out of the room. */
  readonly target: UserId;
  /** Ends the wait. */
  readonly signal?: AbortSignal;
}

/**
 * Waits, as long as look-ups do, until we can tell whether somebody who is to be removed from a room is banned already:
 * the removal would lift that ban. Of our own users, and of those whom others have invited or removed since, a
 * partial state knows it. It is silent on other servers' members; and what they say and do since we joined is no proof,
 * since a banned user's server may have them join and speak on top of what was before the ban. Only the room's full
 * state tells.
 *
 * @throws FullStateMissing; MatrixError 403 M_FORBIDDEN at once where the sender lacks the power
 */
export async function untilStandingIsSure(ctx: ReadContext, removal: Removal): Promise<void> {
  const { roomId, target, signal } = removal;
  const known = await membershipOf(ctx.database.pool, roomId, target);
  if ((await partialRoom(ctx.database.pool, roomId)) === undefined) return;
  if (serverNameOf(target) === ctx.serverName || (await isProved(ctx, known))) return;
  await requirePower(ctx, removal);
  await waitForFullState(ctx, roomId, signal);
}

/** By the answer to our join, or by what somebody else did to the user. A knock is believed, lest none can be answered. */
async function isProved({ database }: ReadContext, known: Member | undefined): Promise<boolean> {
  if (known === undefined || known.membership === "knock") return known !== undefined;
  const event = await loadEvent(database.pool, known.eventId);
  return event !== undefined && (event.outlier || event.pdu.sender !== known.userId);
}

/** Who may not remove the user need not wait to be told so. */
async function requirePower(ctx: ReadContext, { roomId, sender, target }: Removal): Promise<void> {
  const member = await membershipOf(ctx.database.pool, roomId, sender);
  const power = member?.membership === "join" ? await powerStateOf(ctx, roomId) : undefined;
  if (power === undefined) throw new MatrixError(403, "M_FORBIDDEN", `You are not in the room ${roomId}`);
  const { state, rules } = power;
  const own = powerLevelOf(sender, state, rules);
  if (own >= requiredLevel("kick", state, rules) && own > powerLevelOf(target, state, rules)) return;
  throw new MatrixError(403, "M_FORBIDDEN", `You have not the power to remove ${target} from the room`);
}
