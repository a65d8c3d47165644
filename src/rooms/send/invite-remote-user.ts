import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { Event, Pdu } from "../../matrix/event.ts";
import { eventIdOf } from "../../matrix/hashes.ts";
import { serverNameOf } from "../../matrix/identifiers.ts";
import type { ServerName, UserId } from "../../matrix/identifiers.ts";
import { isJsonObject } from "../../matrix/json.ts";
import type { JsonObject } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { transaction } from "../../storage/database.ts";
import { acceptEvent } from "../events/accept-event.ts";
import type { EventDraft } from "../events/build-event.ts";
import { makeEvent, refused } from "../events/create-event.ts";
import type { RoomsContext } from "../context.ts";
import { atStep } from "../failpoints.ts";
import { judgeEvent } from "../events/judge-event.ts";
import { inviteRoomState } from "../read/stripped-state.ts";

interface Draft {
  readonly event: Event;
  readonly rules: RoomVersionRules;
  readonly roomState: readonly JsonObject[];
}

/**
 * Invites a user of another server: the event is made, shown to that server, which signs it, and accepted by us after
 * that. The room is not locked while we wait for the answer.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
 */
export async function inviteRemoteUser(ctx: RoomsContext, draft: EventDraft, target: UserId): Promise<void> {
  const { event, rules, roomState } = await prepare(ctx, draft);
  const server = serverNameOf(target);
  if (server === undefined) {
    throw new MatrixError(400, "M_INVALID_PARAM", `${target} names no server`);
  }
  const invite = {
    roomId: draft.roomId,
    eventId: event.eventId,
    roomVersion: rules.version,
    pdu: event.pdu,
    inviteRoomState: roomState,
  };
  const answered = await atStep(ctx, "send an invitation", () => ctx.federation.invite(server, invite));
  const signed: Event = { ...event, pdu: withSignatureOf(server, event.pdu, answered) };
  if (eventIdOf(signed.pdu, rules) !== event.eventId) {
    throw new MatrixError(502, "M_UNKNOWN", `${server} answered the invitation with another event`);
  }
  const stored = await acceptEvent(ctx, { event: signed, origin: ctx.serverName });
  if (stored.rejection !== null || stored.softFailed) {
    throw refused(stored.rejection ?? "the room's current state does not allow it");
  }
}

async function prepare(ctx: RoomsContext, draft: EventDraft): Promise<Draft> {
  return transaction(ctx.database, async (tx) => {
    const { turn, event, before, partial } = await makeEvent(ctx, tx, draft);
    const verdict = await judgeEvent({ ...turn.source, event }, { state: before.state, partial });
    if (!verdict.allowed) throw refused(verdict.reason);
    return { event, rules: turn.source.rules, roomState: await inviteRoomState(tx, before.snapshotId) };
  });
}

/** Our own event with the other server's signature: nothing else of the answer is of use. */
function withSignatureOf(server: ServerName, pdu: Pdu, answered: JsonObject): Pdu {
  const signatures = answered["signatures"];
  const theirs = isJsonObject(signatures) ? signatures[server] : undefined;
  if (!isJsonObject(theirs)) {
    throw new MatrixError(502, "M_UNKNOWN", `${server} did not sign the invitation`);
  }
  return { ...pdu, signatures: { ...pdu.signatures, [server]: theirs as Readonly<Record<string, string>> } };
}
