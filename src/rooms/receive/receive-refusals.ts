import { authEventIds, type Event } from "../../matrix/event.ts";
import { parsePdu } from "../../matrix/event-format.ts";
import { isUserId, serverNameOf, type EventId, type RoomId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { loadEvent } from "../../storage/events.ts";
import type { Membership } from "../../storage/memberships.ts";
import { holdRoom } from "../../storage/rooms.ts";
import {
  appendLocalMembership,
  currentStreamPosition,
  localMembershipsAt,
  takeStreamPositions,
} from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { storeUntoldMembership } from "../events/store-untold-membership.ts";
import { verifyPdus } from "../events/verify-pdus.ts";

interface OutsidePdus {
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  readonly pdus: readonly JsonObject[];
}

/**
 * Takes, of the PDUs of a room that we are not in, those by which a knock of one of our users is refused or an
 * invitation is taken back. We know nothing by which the auth rules could be asked; but such an event names the knock
 * or the invitation among its auth events, which only servers in the room know, and bears its sender's signature. An
 * invitation is taken back by whoever gave it.
 *
 * @returns an empty result for each that was taken
 */
export async function receiveRefusals(
  ctx: RoomsContext,
  { roomId, rules, pdus }: OutsidePdus,
): Promise<Readonly<Record<EventId, Readonly<Record<string, never>>>>> {
  const taken: Record<EventId, Readonly<Record<string, never>>> = {};
  for (const pdu of pdus) {
    const verdict = parsePdu(pdu, rules);
    if (!verdict.ok || !(await endsWhatStands(ctx, verdict.event))) continue;
    const { events } = await verifyPdus(ctx, { roomId, rules, pdus: [pdu] });
    for (const event of events) {
      await storeRefusal(ctx, event);
      taken[event.eventId] = {};
    }
  }
  return taken;
}

function refusalIn({ pdu }: Event): Extract<Membership, "leave" | "ban"> | undefined {
  const { membership } = pdu.content;
  if (pdu.type !== "m.room.member" || pdu.state_key === pdu.sender) return undefined;
  return membership === "leave" || membership === "ban" ? membership : undefined;
}

async function endsWhatStands(ctx: RoomsContext, event: Event): Promise<boolean> {
  const { pdu, roomId } = event;
  const { state_key: target, sender } = pdu;
  if (refusalIn(event) === undefined || !isUserId(target) || serverNameOf(target) !== ctx.serverName) return false;
  const { pool } = ctx.database;
  const standings = await localMembershipsAt(pool, target, await currentStreamPosition(pool));
  const standing = standings.find((one) => one.roomId === roomId);
  if (standing === undefined || !authEventIds(pdu).includes(standing.eventId)) return false;
  if (standing.membership === "knock") return true;
  return standing.membership === "invite" && (await loadEvent(pool, standing.eventId))?.pdu.sender === sender;
}

async function storeRefusal(ctx: RoomsContext, event: Event): Promise<void> {
  const { roomId, eventId, pdu } = event;
  const [membership, userId] = [refusalIn(event), pdu.state_key];
  if (membership === undefined || !isUserId(userId)) return;
  await commit(ctx, "store a refusal", async (tx) => {
    await holdRoom(tx, roomId);
    if (!(await storeUntoldMembership(tx, event, userId))) return;
    const streamId = await takeStreamPositions(tx, 1);
    await appendLocalMembership(tx, { streamId, userId, roomId, membership, eventId });
  });
}
