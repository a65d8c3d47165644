import type { EventId } from "../../../src/matrix/identifiers.ts";
import { stateEntries } from "../../../src/matrix/state.ts";
import type { StateMap } from "../../../src/matrix/state.ts";
import { jsonPieces } from "../answer.ts";
import { authChain, stateBefore } from "../hosted-room.ts";
import type { HostedRoom } from "../hosted-room.ts";
import { liedChain, liedState, servedText, textsOf } from "../lies.ts";
import { ok, requireInRoom, servedEvent, visitedEventId, visitedRoom } from "../visit.ts";
import type { Handler, Visit } from "../visit.ts";

interface StateAnswer {
  readonly room: HostedRoom;
  readonly state: readonly EventId[];
  readonly chain: ReadonlySet<EventId>;
}

/** The state before the event, and its auth chain, after all lies. */
function askedState(visit: Visit): StateAnswer {
  const room = visitedRoom(visit);
  requireInRoom(visit, room);
  const { event } = servedEvent(room, visitedEventId(visit));
  const state: StateMap = stateBefore(room, event.eventId);
  const truth = [...stateEntries(state)].map(([, eventId]) => eventId);
  return {
    room,
    state: liedState(visit.troubles, room, truth),
    chain: liedChain(visit.troubles, authChain(room, truth)),
  };
}

export const stateIds: Handler = (visit) => {
  const { state, chain } = askedState(visit);
  return ok({ pdu_ids: state, auth_chain_ids: [...chain] });
};

export const state: Handler = (visit) => {
  const { room, state: ids, chain } = askedState(visit);
  const pieces = jsonPieces({
    pdus: textsOf(visit.troubles, room, ids),
    auth_chain: textsOf(visit.troubles, room, chain, "auth_chain"),
  });
  return { status: 200, pieces };
};

export const eventAuth: Handler = (visit) => {
  const room = visitedRoom(visit);
  requireInRoom(visit, room);
  const { event } = servedEvent(room, visitedEventId(visit));
  const chain = liedChain(visit.troubles, authChain(room, [event.eventId]));
  return { status: 200, pieces: jsonPieces({ auth_chain: textsOf(visit.troubles, room, chain, "auth_chain") }) };
};

export const event: Handler = (visit) => {
  const eventId = visitedEventId(visit);
  for (const room of visit.world.rooms.values()) {
    if (!room.events.has(eventId)) continue;
    requireInRoom(visit, room);
    return pdusAnswer(visit, [servedText(visit.troubles, servedEvent(room, eventId))]);
  }
  return { status: 404, body: { errcode: "M_NOT_FOUND", error: "the resident has no such event" } };
};

export function pdusAnswer(visit: Visit, texts: readonly string[]): { status: 200; pieces: Iterable<string> } {
  const pieces = jsonPieces({
    origin: JSON.stringify(visit.front.serverName),
    origin_server_ts: String(Date.now()),
    pdus: texts,
  });
  return { status: 200, pieces };
}
