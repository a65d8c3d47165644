import { MatrixError } from "../../../src/federation-api/matrix-error.ts";
import { prevEventIds } from "../../../src/matrix/event.ts";
import type { Event, Pdu } from "../../../src/matrix/event.ts";
import type { EventId, ServerName } from "../../../src/matrix/identifiers.ts";
import { stringifyJson } from "../../../src/matrix/json.ts";
import { signEvent } from "../../../src/matrix/signatures.ts";
import { stateEntries, stateGet } from "../../../src/matrix/state.ts";
import type { StateMap } from "../../../src/matrix/state.ts";
import { jsonPieces } from "../answer.ts";
import type { Answer } from "../answer.ts";
import { authorisingServer, composeEvent } from "../compose-event.ts";
import { deliver } from "../deliver.ts";
import { authChain, eventOf, joinedByServer, mustHave, stateBeforeAll } from "../hosted-room.ts";
import type { HostedRoom } from "../hosted-room.ts";
import { liedChain, liedState, textsOf } from "../lies.ts";
import { lieNamed, liesNamed, troubleOf } from "../trouble.ts";
import { visitedRoom } from "../visit.ts";
import type { Handler, Visit } from "../visit.ts";
import { identityIn, outsideServers } from "../world.ts";
import { admitMembership } from "./membership-routes.ts";

/** The state before the join as it is told: all of it, or without members. */
interface Told {
  readonly room: HostedRoom;
  readonly join: Event;
  readonly before: StateMap;
  readonly omitted: boolean;
}

async function admitJoin(visit: Visit, omitted: boolean): Promise<Told> {
  const { world, front } = visit;
  const room = visitedRoom(visit);
  const join = await admitMembership(visit, "join", (pdu: Pdu) =>
    authorisingServer(pdu) === front.serverName
      ? signEvent(pdu, front.serverName, identityIn(world)(front.serverName), room.rules)
      : pdu,
  );
  // The other servers in the room hear of the join from the resident, not from who joined.
  const told = { room, join, before: stateBeforeAll(room, prevEventIds(join.pdu)), omitted };
  if (!world.tellsOfJoins) return told;
  const others = outsideServers(world, room).filter((server) => server !== visit.origin);
  void deliver(world, { room, eventIds: [join.eventId], to: others, origin: front.serverName });
  return told;
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid */
export const sendJoinV2: Handler = async (visit) => {
  const asked = visit.query.get("omit_members") ?? "false";
  if (asked !== "true" && asked !== "false") {
    throw new MatrixError(400, "M_INVALID_PARAM", "omit_members is true or false");
  }
  const refused = troubleOf(visit.troubles, "full-join") !== undefined;
  const unasked = lieNamed(visit.troubles, "omit-unasked") !== undefined;
  const told = await admitJoin(visit, unasked || (asked === "true" && !refused));
  return { status: 200, pieces: joinPieces(visit, told) };
};

export const sendJoinV1: Handler = async (visit): Promise<Answer> => {
  const told = await admitJoin(visit, false);
  return { status: 200, pieces: ["[200,", ...joinPieces(visit, told), "]"] };
};

function joinPieces(visit: Visit, told: Told): Generator<string> {
  const { room, join, omitted } = told;
  const truth = [...stateEntries(told.before)].map(([, eventId]) => eventId);
  const told_ = liedState(visit.troubles, room, truth);
  const heroes = omitted ? membersTold(room, told) : new Set<EventId>();
  const state = omitted ? told_.filter((id) => !isMember(room, id) || heroes.has(id)) : told_;
  const chain = authChain(room, [join.eventId, ...state]);
  if (omitted) for (const id of state) chain.delete(id);
  const falseCreate = lieNamed(visit.troubles, "other-create");
  const created = falseCreate === undefined ? [] : [otherCreate(visit, room)];
  const stateTexts = [
    ...textsOf(visit.troubles, room, falseCreate?.where === "state" ? withoutCreate(room, state) : state),
  ];
  const chainTexts = [...textsOf(visit.troubles, room, liedChain(visit.troubles, chain), "auth_chain")];
  (falseCreate?.where === "state" ? stateTexts : chainTexts).push(...created);
  return jsonPieces({
    origin: JSON.stringify(visit.front.serverName),
    ...saidOfMembers(visit, told),
    event: stringifyJson(join.pdu),
    state: stateTexts,
    auth_chain: chainTexts,
  });
}

function isMember(room: HostedRoom, eventId: EventId): boolean {
  return eventOf(room, eventId)?.pdu.type === "m.room.member";
}

function withoutCreate(room: HostedRoom, ids: readonly EventId[]): EventId[] {
  return ids.filter((id) => eventOf(room, id)?.pdu.type !== "m.room.create");
}

/** Another room's create event, well signed. */
function otherCreate(visit: Visit, room: HostedRoom): string {
  const [create] = room.events.values();
  if (create === undefined) throw new Error("a room without a create event");
  const { sender, content } = create.event.pdu;
  const other = composeEvent(room, identityIn(visit.world), {
    sender,
    type: "m.room.create",
    stateKey: "",
    content: { ...content, "test.rooms.other": true },
    prevEvents: [],
    evenIfRejected: true,
  });
  return other.text;
}

/** The members that a partial answer holds all the same: the joiner's earlier event, and heroes of a nameless room. */
function membersTold(room: HostedRoom, { join, before }: Told): Set<EventId> {
  const own = stateGet(before, "m.room.member", join.pdu.sender);
  const told = new Set<EventId>(own === undefined ? [] : [own]);
  const named = stateGet(before, "m.room.name", "") ?? stateGet(before, "m.room.canonical_alias", "");
  if (named !== undefined) return told;
  for (const [, id] of stateEntries(before)) {
    if (told.size >= 5) break;
    if (isMember(room, id) && mustHave(room, id).event.pdu.content["membership"] === "join") told.add(id);
  }
  return told;
}

function saidOfMembers(visit: Visit, { room, before, omitted }: Told): Record<string, string | string[]> {
  const says = lieNamed(visit.troubles, "members-omitted")?.says ?? omitted;
  const hidden = liesNamed(visit.troubles, "hide-server").map(({ server }) => server);
  const shown = liesNamed(visit.troubles, "show-server").map(({ server }) => server);
  const joined = [...joinedByServer(room, before).keys()].filter((server) => !hidden.includes(server));
  const servers: ServerName[] = [...new Set([...joined, ...shown])];
  const tells = omitted && lieNamed(visit.troubles, "no-servers-in-room") === undefined;
  return {
    members_omitted: String(says),
    ...(tells ? { servers_in_room: servers.toSorted().map((server) => JSON.stringify(server)) } : {}),
  };
}
