import { MatrixError } from "../../../src/federation-api/matrix-error.ts";
import type { Event, Pdu } from "../../../src/matrix/event.ts";
import { serverNameOf } from "../../../src/matrix/identifiers.ts";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import { admitEvent } from "../admit-event.ts";
import { templateFor, verdictOn } from "../compose-event.ts";
import { currentState, membershipIn, stateEventOf } from "../hosted-room.ts";
import type { HostedRoom } from "../hosted-room.ts";
import { lieNamed } from "../trouble.ts";
import { bodyOf, ok, visitedRoom, visitedUser } from "../visit.ts";
import type { Handler, Visit } from "../visit.ts";

/** A membership event to be completed and signed by the asking server, if the auth rules would allow it. */
export function membershipTemplate(visit: Visit, room: HostedRoom, content: JsonObject): JsonObject {
  const user = visitedUser(visit);
  if (serverNameOf(user) !== visit.origin) {
    throw new MatrixError(403, "M_FORBIDDEN", `${user} is not a user of ${visit.origin}`);
  }
  const { pdu, state } = templateFor(room, {
    sender: user,
    type: "m.room.member",
    stateKey: user,
    content,
    originServerTs: Date.now(),
  });
  const event: Event = { eventId: "$template", roomId: room.roomId, pdu, rejected: false };
  const verdict = verdictOn(room, event, state);
  if (!verdict.allowed) throw new MatrixError(403, "M_FORBIDDEN", verdict.reason);
  const version = lieNamed(visit.troubles, "room-version")?.version ?? room.rules.version;
  const changes = lieNamed(visit.troubles, "template")?.changes ?? {};
  return { room_version: version, event: { ...pdu, ...changes } };
}

export function requireVersion(visit: Visit, room: HostedRoom): void {
  const versions = visit.query.getAll("ver");
  if ((versions.length === 0 ? ["1"] : versions).includes(room.rules.version)) return;
  throw new MatrixError(400, "M_INCOMPATIBLE_ROOM_VERSION", "you do not know this room version", {
    room_version: room.rules.version,
  });
}

export const makeJoin: Handler = (visit) => {
  const room = visitedRoom(visit);
  requireVersion(visit, room);
  return ok(membershipTemplate(visit, room, { membership: "join", ...authorisedVia(visit, room) }));
};

/** In a restricted room the front's own user vouches, whatever the allowed rooms are. */
function authorisedVia(visit: Visit, room: HostedRoom): JsonObject {
  if (!room.rules.restrictedJoins) return {};
  const state = currentState(room);
  const rule = stateEventOf(room, state, ["m.room.join_rules", ""])?.pdu.content["join_rule"];
  if (rule !== "restricted" && rule !== "knock_restricted") return {};
  const membership = membershipIn(room, state, visitedUser(visit));
  if (membership === "join" || membership === "invite") return {};
  if (membershipIn(room, state, visit.front.user) !== "join") {
    throw new MatrixError(400, "M_UNABLE_TO_GRANT_JOIN", "nobody here can vouch for you");
  }
  return { join_authorised_via_users_server: visit.front.user };
}

export const makeLeave: Handler = (visit) => ok(membershipTemplate(visit, visitedRoom(visit), { membership: "leave" }));

/** Checks the path against the event that was sent to it, and admits it. */
export async function admitMembership(
  visit: Visit,
  membership: string,
  finish: (pdu: Pdu) => Pdu = (pdu) => pdu,
): Promise<Event> {
  const { world, origin = "" } = visit;
  const room = visitedRoom(visit);
  const pdu = bodyOf(visit) as Pdu;
  if (pdu.type !== "m.room.member" || pdu.content["membership"] !== membership || pdu.sender !== pdu.state_key) {
    throw new MatrixError(400, "M_BAD_JSON", `no ${membership} of its sender`);
  }
  if (serverNameOf(pdu.sender) !== origin) throw new MatrixError(403, "M_FORBIDDEN", "not your user");
  const { event } = await admitEvent({ world, room, origin }, finish(pdu));
  if (event.eventId !== (visit.path["event"] as EventId)) {
    throw new MatrixError(400, "M_BAD_JSON", `the event is ${event.eventId}`);
  }
  if (event.rejected) throw new MatrixError(403, "M_FORBIDDEN", "the auth rules refuse this event");
  return event;
}

export const sendLeaveV2: Handler = async (visit) => {
  await admitMembership(visit, "leave");
  return ok({});
};

export const sendLeaveV1: Handler = async (visit) => {
  await admitMembership(visit, "leave");
  return { status: 200, body: [200, {}] };
};
