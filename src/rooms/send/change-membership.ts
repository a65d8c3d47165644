import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import { membershipOf } from "../../storage/memberships.ts";
import type { Member } from "../../storage/memberships.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import { waitForFullState } from "../read/full-state-wait.ts";
import type { ReadContext } from "../read/full-state-wait.ts";
import { createMembershipEvent } from "./create-membership-event.ts";

export interface MembershipChange {
  readonly kind: "kick" | "ban" | "unban";
  readonly roomId: RoomId;
  readonly sender: UserId;
  readonly target: UserId;
  readonly reason?: string;
  /** Ends the wait for the full state. */
  readonly signal?: AbortSignal;
}

/**
 * Kicks, bans or unbans a user. A kick or a ban of somebody whose membership we don't know yet, since the state is
 * partial, is made in good faith: the auth rules ask for the sender's power, and for the target's, which power levels
 * tell. To lift a ban one must know that there is one, as for anyone else the same event would be a kick; so that waits
 * for the full state.
 *
 * @throws FullStateMissing; MatrixError 403 M_FORBIDDEN
 */
export async function changeMembership(ctx: ReadContext, change: MembershipChange): Promise<void> {
  const { kind, roomId, sender, target, reason } = change;
  await checkTarget(ctx, change);
  const content = { membership: kind === "ban" ? "ban" : "leave", ...(reason === undefined ? {} : { reason }) };
  await createMembershipEvent(ctx, { roomId, sender, target, content });
}

async function checkTarget(ctx: ReadContext, change: MembershipChange): Promise<void> {
  const { kind, roomId, sender, target, signal } = change;
  if (kind === "ban") {
    return;
  }
  const known = await membershipOf(ctx.database.pool, roomId, target);
  if (kind === "unban" && known?.membership !== "ban") {
    // Who is not in the room need not wait to be told so.
    refuseUnless(await membershipOf(ctx.database.pool, roomId, sender), ["join"], `${sender} is not in the room`);
    await waitForFullState(ctx, roomId, signal);
    const member = await membershipOf(ctx.database.pool, roomId, target);
    refuseUnless(member, ["ban"], `${target} is not banned`);
    return;
  }
  const partial = (await partialRoom(ctx.database.pool, roomId)) !== undefined;
  if (kind === "kick" && !(partial && known === undefined)) {
    refuseUnless(known, ["join", "invite", "knock"], `${target} is not in the room`);
  }
}

function refuseUnless(member: Member | undefined, memberships: readonly Member["membership"][], message: string): void {
  if (member === undefined || !memberships.includes(member.membership)) {
    throw new MatrixError(403, "M_FORBIDDEN", message);
  }
}
