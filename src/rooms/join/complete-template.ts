import { randomBytes } from "node:crypto";
import type { MembershipTemplate } from "../../federation-api/endpoints.ts";
import { CanonicalJsonError } from "../../matrix/canonical-json.ts";
import type { Event, Pdu } from "../../matrix/event.ts";
import { parsePdu } from "../../matrix/event-format.ts";
import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { rulesOf, type RoomVersionRules } from "../../matrix/room-versions.ts";
import { hashAndSignEvent } from "../../matrix/signatures.ts";
import type { RoomsContext } from "../context.ts";

export interface MembershipRequest {
  readonly roomId: RoomId;
  readonly userId: UserId;
  /** Keys beside those that the handshake gives, such as `displayname` and `reason`. */
  readonly content: JsonObject;
}

export type Fail = (reason: string) => never;

/** Checks that a template of make_join or make_leave is about what was asked. */
export function rulesOfTemplate(
  template: MembershipTemplate,
  { roomId, userId }: MembershipRequest,
  fail: Fail,
): RoomVersionRules {
  const { event, room_version: version = "1" } = template;
  const rules = rulesOf(version) ?? fail(`is of the unknown room version ${version}`);
  if (event["type"] !== "m.room.member") fail("is no m.room.member event");
  if (event["room_id"] !== roomId) fail("is of another room");
  if (event["sender"] !== userId || event["state_key"] !== userId) fail("is of another user");
  return rules;
}

/**
 * The proposed event with what is ours to say, hashed and signed. Its place in the graph and its auth events are taken
 * from the template. Some servers refuse an event without `origin`, although the specification has dropped it.
 */
export function completeTemplate(
  ctx: RoomsContext,
  proposed: JsonObject,
  { rules, content, fail }: { readonly rules: RoomVersionRules; readonly content: JsonObject; readonly fail: Fail },
): Event {
  const { event_id: _id, hashes: _hashes, signatures: _signatures, unsigned: _unsigned, ...kept } = proposed;
  const draft: JsonObject = {
    ...kept,
    ...(rules.eventIdFormat === "chosen-by-sender"
      ? { event_id: `$${randomBytes(18).toString("base64url")}:${ctx.serverName}` }
      : {}),
    content,
    origin: ctx.serverName,
    origin_server_ts: ctx.now(),
  };
  const verdict = parsePdu(signed(ctx, draft, rules, fail), rules);
  return verdict.ok ? verdict.event : fail(`is malformed: ${verdict.reason}`);
}

/** What the template holds beyond our own keys is hashed too, and may have no canonical form. */
function signed(ctx: RoomsContext, draft: JsonObject, rules: RoomVersionRules, fail: Fail): Pdu {
  try {
    return hashAndSignEvent(draft as Pdu, ctx.serverName, ctx.signingKey, rules);
  } catch (error) {
    if (error instanceof CanonicalJsonError) return fail(`is malformed: ${error.message}`);
    throw error;
  }
}
