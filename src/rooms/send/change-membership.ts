import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import { membershipOf } from "../../storage/memberships.ts";
import type { Member } from "../../storage/memberships.ts";
import { waitForFullState } from "../read/full-state-wait.ts";
import type { ReadContext } from "../read/full-state-wait.ts";
import { createMembershipEvent } from "./create-membership-event.ts";
import { untilStandingIsSure } from "./until-standing-is-sure.ts";

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
 * Kicks, bans or unbans a user. A ban of somebody whose membership we don't know yet, since the state is partial, is
 * made in good faith: the auth rules ask for the sender's power, and for the target's, which power levels tell. A kick
 * and the lifting of a ban are the same event, and which of the two it is the target's membership decides: so both wait
 * for that.
 *
 * @throws FullStateMissing; MatrixError 403 M_FORBIDDEN
 */
export async function changeMembership(ctx: ReadContext, change: MembershipChange): Promise<void> {
  const { kind, roomId, sender, target, reason } = change;
  await checkTarget(ctx, change);
  const content = { membership: kind === "ban" ? "ban" : "leave", ...(reason === undefined ? {} : { reason }) };
  await createMembershipEvent(ctx, { roomId, sender, target, content, keepsBan: kind === "kick" });
}

async function checkTarget(ctx: ReadContext, change: MembershipChange): Promise<void> {
  const { kind, roomId, sender, target, signal } = change;
  const { pool } = ctx.database;
  switch (kind) {
    case "ban":
      return;
    case "kick":
      await untilStandingIsSure(ctx, change);
      refuseUnless(
        await membershipOf(pool, roomId, target),
        ["join", "invite", "knock"],
        `${target} is not in the room`,
      );
      return;
    case "unban":
      if ((await membershipOf(pool, roomId, target))?.membership === "ban") return;
      // Who is not in the room need not wait to be told so.
      refuseUnless(await membershipOf(pool, roomId, sender), ["join"], `${sender} is not in the room`);
      await waitForFullState(ctx, roomId, signal);
      refuseUnless(await membershipOf(pool, roomId, target), ["ban"], `${target} is not banned`);
  }
}

function refuseUnless(member: Member | undefined, memberships: readonly Member["membership"][], message: string): void {
  if (member === undefined || !memberships.includes(member.membership)) {
    throw new MatrixError(403, "M_FORBIDDEN", message);
  }
}
