import { currentState, stateEventOf } from "../hosted-room.ts";
import { ok, visitedRoom } from "../visit.ts";
import type { Handler } from "../visit.ts";
import { admitMembership, membershipTemplate, requireVersion } from "./membership-routes.ts";

/** @see https://spec.matrix.org/v1.19/server-server-api/#knocking-upon-a-room */
export const makeKnock: Handler = (visit) => {
  const room = visitedRoom(visit);
  requireVersion(visit, room);
  return ok(membershipTemplate(visit, room, { membership: "knock" }));
};

/** The room's other servers are not told. */
export const sendKnock: Handler = async (visit) => {
  const room = visitedRoom(visit);
  await admitMembership(visit, "knock");
  const state = currentState(room);
  const told = ["m.room.create", "m.room.join_rules", "m.room.name"].flatMap(
    (type) => stateEventOf(room, state, [type, ""])?.pdu ?? [],
  );
  return ok({ knock_room_state: told });
};
