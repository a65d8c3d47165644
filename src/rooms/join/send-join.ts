import type { SendJoinSummary } from "../../federation-api/endpoints.ts";
import type { OnEvent } from "../../federation-client/client.ts";
import { FederationFailure } from "../../federation-client/failures.ts";
import type { Event } from "../../matrix/event.ts";
import { isServerName, type EventId, type RoomId, type ServerName } from "../../matrix/identifiers.ts";
import { isJsonObject, type JsonObject } from "../../matrix/json.ts";
import { jsonWeight } from "../../matrix/json-weight.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { noteEarlyOutliers } from "../../storage/early-outliers.ts";
import { insertOutliers } from "../../storage/events.ts";
import { insertOrCorrectRoom } from "../../storage/rooms.ts";
import type { AuthorizedOutlier } from "../events/authorize-outliers.ts";
import {
  checkCreateEvents,
  checkJudges,
  isCreate,
  isJoinedAt,
  judgesOf,
  noteJudge,
  reportLeftOut,
  type Judges,
} from "./check-join-answer.ts";
import { completeTemplate, type Fail, type MembershipRequest } from "./complete-template.ts";
import type { RoomsContext } from "../context.ts";
import { atStep, commit } from "../failpoints.ts";
import type { JoinTemplate } from "./make-join.ts";
import {
  createOutlierIntake,
  type OnRead,
  type OutlierIntakeResult,
  type TakenOutlier,
} from "../fetch/outlier-intake.ts";
import { verifyPdus } from "../events/verify-pdus.ts";

/**
 * A resident server's answer to our join, each of its events checked (1 to 4) and none of it stored for good. Events that
 * are not genuine, and what builds upon them, are left out (docs/decisions/017): where one was of the state,
 * `stateEventIds` still names it.
 */
export interface JoinAnswer {
  readonly server: ServerName;
  readonly rules: RoomVersionRules;
  /** Our join event, with the signatures that the resident added. */
  readonly join: Event;
  readonly membersOmitted: boolean;
  /** The servers in the room before the join, the answering one included, ours not. */
  readonly servers: readonly ServerName[];
  /** The ids of the state before the join, as far as it was told. */
  readonly stateEventIds: readonly EventId[];
  /** Entries of that state which are no events, so that they have no id. */
  readonly unreadableState: number;
  /** State and auth chain, auth events first; what a full answer held beyond {@link HELD_IN_MEMORY} is stored already. */
  readonly outliers: readonly TakenOutlier[];
}

/** A light answer holds hundreds of events. Those of a full one beyond this become outliers at once. */
const HELD_IN_MEMORY = 3000;
const MAX_HELD_WEIGHT = 16 * 1024 * 1024;

/** The largest rooms that are known have a third of this. */
const MAX_STATE_EVENTS = 400_000;

/** No room has as many servers; a longer list is a mistake or an attack. */
const MAX_SERVERS = 50_000;

/**
 * Signs the join event and sends it to the server that proposed it, asking for the light answer.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
 * @throws FederationFailure; an answer that fails a check is a `bad-response` that names the check
 */
export async function sendJoin(
  ctx: RoomsContext,
  template: JoinTemplate,
  request: MembershipRequest,
): Promise<JoinAnswer> {
  const { server, rules } = template;
  const ours = joinEvent(ctx, template, request);
  const { roomId } = request;
  const refuse: Fail = (reason) => {
    throw new FederationFailure({ kind: "bad-response", server, reason: `its send_join answer ${reason}` });
  };
  const parts = takeParts(ctx, { server, roomId, ours, rules }, refuse);
  const onEvent: OnEvent = (kind, pdu) => parts.add(kind, pdu);
  const call = { roomId, eventId: ours.eventId, pdu: ours.pdu, omitMembers: true, onEvent };
  const { summary, result, told } = await takeAnswer(ctx, server, { parts, call });
  checkCreateEvents({ ...told, roomId, rules, result }, refuse);
  checkJudges(told.judges, result, refuse);
  if (!summary.membersOmitted && !told.ofResident) refuse("is said to be whole, and has no member of its own server");
  reportLeftOut(ctx, roomId, result);
  return {
    server,
    rules,
    join: await withAddedSignatures(ctx, ours, { summary, template, refuse }),
    membersOmitted: summary.membersOmitted,
    servers: serversInRoom(ctx, server, summary, refuse),
    stateEventIds: told.stateIds,
    unreadableState: told.unreadableState,
    outliers: told.outliers,
  };
}

type SendJoinCall = Parameters<RoomsContext["federation"]["sendJoin"]>[1];

async function takeAnswer(
  ctx: RoomsContext,
  server: ServerName,
  { parts, call }: { readonly parts: AnswerParts; readonly call: SendJoinCall },
): Promise<{ readonly summary: SendJoinSummary } & TakenAnswer> {
  try {
    const summary = await atStep(ctx, "send a join", () =>
      ctx.federation.sendJoin(server, call, { ignoreBackOff: true }),
    );
    return { summary, ...(await parts.settle()) };
  } finally {
    await parts.end();
  }
}

interface TakenAnswer {
  readonly result: OutlierIntakeResult;
  readonly told: ToldEvents;
}

interface AnswerParts {
  /** Takes one event of the answer; the promise is the answer's back-pressure. */
  add: OnEvent;
  settle(): Promise<TakenAnswer>;
  end(): Promise<void>;
}

interface ToldEvents {
  readonly outliers: readonly TakenOutlier[];
  readonly creates: readonly AuthorizedOutlier[];
  readonly stateIds: readonly EventId[];
  readonly unreadableState: number;
  /** Somebody of the answering server, which must be in the room, is joined. */
  readonly ofResident: boolean;
  readonly judges: Judges;
}

interface JoinMade {
  readonly server: ServerName;
  readonly roomId: RoomId;
  readonly ours: Event;
  readonly rules: RoomVersionRules;
}

function takeParts(ctx: RoomsContext, { server, roomId, ours, rules }: JoinMade, refuse: Fail): AnswerParts {
  const outliers: TakenOutlier[] = [];
  const judges = judgesOf(ours, rules);
  const creates = new Map<EventId, AuthorizedOutlier>();
  const stateIds: EventId[] = [];
  let inState = 0;
  let unreadableState = 0;
  let ofResident = false;
  let weight = 0;
  const intake = createOutlierIntake(ctx, {
    roomId,
    rules,
    // Of a light answer all must find room, however large others are.
    roomToWait: MAX_HELD_WEIGHT,
    keep: async (chunk) => {
      // Two are one too many: no further one changes that.
      const created = chunk.filter(({ event }) => isCreate(event)).slice(0, 2);
      if (creates.size < 2) for (const one of created) creates.set(one.event.eventId, one);
      for (const { event } of chunk) judges.told.delete(event.eventId);
      for (const { event } of chunk) weight += jsonWeight(event.pdu);
      if (outliers.length + chunk.length <= HELD_IN_MEMORY && weight <= MAX_HELD_WEIGHT) {
        outliers.push(...chunk);
        return "held";
      }
      // What comes next is stored at once too.
      weight = Number.POSITIVE_INFINITY;
      await storeEarly(ctx, roomId, rules, [...outliers.splice(0), ...chunk]);
      return "stored";
    },
  });
  const onStateRead: OnRead = (event) => {
    if (event === undefined) {
      unreadableState += 1;
      return;
    }
    stateIds.push(event.eventId);
    noteJudge(judges, event);
    ofResident ||= isJoinedAt(server, event);
  };
  return {
    add(kind, pdu) {
      if (kind !== "state") return intake.add(pdu);
      inState += 1;
      if (inState > MAX_STATE_EVENTS) refuse(`has more than ${MAX_STATE_EVENTS} events in its state`);
      return intake.add(pdu, onStateRead);
    },
    async settle() {
      const result = await intake.settle();
      return {
        result,
        told: { outliers, creates: [...creates.values()], stateIds, unreadableState, ofResident, judges },
      };
    },
    end: () => intake.end(),
  };
}

function joinEvent(ctx: RoomsContext, template: JoinTemplate, request: MembershipRequest): Event {
  const { rules, server, event } = template;
  const proposed = isJsonObject(event["content"]) ? event["content"] : {};
  const authorisedVia = proposed["join_authorised_via_users_server"];
  const content: JsonObject = {
    ...request.content,
    membership: "join",
    ...(authorisedVia === undefined ? {} : { join_authorised_via_users_server: authorisedVia }),
  };
  const fail: Fail = (reason) => {
    throw new FederationFailure({ kind: "bad-response", server, reason: `its make_join template ${reason}` });
  };
  return completeTemplate(ctx, event, { rules, content, fail });
}

function idsOf(chunk: readonly TakenOutlier[]): readonly EventId[] {
  return chunk.map(({ event }) => event.eventId);
}

async function storeEarly(
  ctx: RoomsContext,
  roomId: RoomId,
  rules: RoomVersionRules,
  chunk: readonly TakenOutlier[],
): Promise<void> {
  await commit(ctx, "store early events of an answer", async (tx) => {
    await insertOrCorrectRoom(tx, { roomId, roomVersion: rules.version });
    const inserted = await insertOutliers(tx, chunk);
    // Until the room is entered: the join may yet fail, or die.
    if (inserted > 0) await noteEarlyOutliers(tx, roomId, idsOf(chunk));
  });
}

function serversInRoom(
  ctx: RoomsContext,
  server: ServerName,
  summary: SendJoinSummary,
  refuse: Fail,
): readonly ServerName[] {
  const told = summary.serversInRoom;
  if (summary.membersOmitted && told === undefined) refuse("omits members without servers_in_room");
  if ((told?.length ?? 0) > MAX_SERVERS) refuse(`names ${told?.length} servers`);
  const servers = new Set([server, ...(told ?? [])].filter(isServerName));
  servers.delete(ctx.serverName);
  return [...servers];
}

/** In a restricted room the resident signs our join too; anything else that it says of the event is not taken. */
async function withAddedSignatures(
  ctx: RoomsContext,
  ours: Event,
  {
    summary,
    template,
    refuse,
  }: { readonly summary: SendJoinSummary; readonly template: JoinTemplate; readonly refuse: Fail },
): Promise<Event> {
  const pdus = summary.event === undefined ? [] : [summary.event];
  const { events } = await verifyPdus(ctx, { roomId: ours.roomId, rules: template.rules, pdus });
  const theirs = events.find((event) => event.eventId === ours.eventId);
  if (theirs === undefined) {
    // Other servers would drop our join.
    if (template.authorisedVia !== undefined) refuse("does not vouch for the join to a restricted room");
    return ours;
  }
  const signatures = { ...theirs.pdu.signatures, ...ours.pdu.signatures };
  return { ...ours, pdu: { ...ours.pdu, signatures } };
}
