import type { SendJoinSummary } from "../../federation-api/endpoints.ts";
import { FederationFailure } from "../../federation-client/failures.ts";
import { isStateEvent, type Event } from "../../matrix/event.ts";
import { parsePdu } from "../../matrix/event-format.ts";
import { isServerName, type EventId, type RoomId, type ServerName } from "../../matrix/identifiers.ts";
import { isJsonObject, type JsonObject } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { transaction } from "../../storage/database.ts";
import { insertOutliers } from "../../storage/events.ts";
import { insertOrCorrectRoom } from "../../storage/rooms.ts";
import type { AuthorizedOutlier } from "../events/authorize-outliers.ts";
import { completeTemplate, type Fail, type MembershipRequest } from "./complete-template.ts";
import type { RoomsContext } from "../context.ts";
import type { JoinTemplate } from "./make-join.ts";
import { createOutlierIntake, type OutlierIntakeResult } from "../fetch/outlier-intake.ts";
import { verifyPdus } from "../events/verify-pdus.ts";

/** A resident server's answer to our join, each of its events checked (1 to 4) and none of it stored for good. */
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
  /** State and auth chain, auth events first; what a full answer held beyond {@link HELD_IN_MEMORY} is stored already. */
  readonly outliers: readonly AuthorizedOutlier[];
}

/** A light answer holds hundreds of events. Those of a full one beyond this become outliers at once. */
const HELD_IN_MEMORY = 3000;

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
  const outliers: AuthorizedOutlier[] = [];
  const creates = new Map<EventId, AuthorizedOutlier>();
  const intake = createOutlierIntake(ctx, {
    roomId: request.roomId,
    rules,
    keep: async (chunk) => {
      for (const one of chunk.filter(({ event }) => isCreate(event))) creates.set(one.event.eventId, one);
      if (outliers.length + chunk.length <= HELD_IN_MEMORY) {
        outliers.push(...chunk);
        return "held";
      }
      await storeEarly(ctx, request, rules, [...outliers.splice(0), ...chunk]);
      return "stored";
    },
  });
  const stateEventIds: EventId[] = [];
  const summary = await ctx.federation.sendJoin(
    server,
    {
      roomId: request.roomId,
      eventId: ours.eventId,
      pdu: ours.pdu,
      omitMembers: true,
      onEvent: async (kind, pdu) => {
        const verdict = kind === "state" ? parsePdu(pdu, rules) : undefined;
        if (verdict?.ok === true) stateEventIds.push(verdict.event.eventId);
        await intake.add(pdu);
      },
    },
    { ignoreBackOff: true },
  );
  const refuse: Fail = (reason) => {
    throw new FederationFailure({ kind: "bad-response", server, reason: `its send_join answer ${reason}` });
  };
  const result = await intake.settle();
  checkEvents(ctx, result, refuse);
  checkCreatorsKey(result, [...creates.values()], refuse);
  checkCreateEvents(
    { creates: [...creates.values()], stateIds: new Set(stateEventIds), roomId: request.roomId, rules },
    refuse,
  );
  return {
    server,
    rules,
    join: await withAddedSignatures(ctx, ours, { summary, template, refuse }),
    membersOmitted: summary.membersOmitted,
    servers: serversInRoom(ctx, server, summary, refuse),
    stateEventIds,
    outliers,
  };
}

/** By any state key: no second one of whatever form. */
function isCreate({ pdu }: Event): boolean {
  return pdu.type === "m.room.create" && isStateEvent(pdu);
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

async function storeEarly(
  ctx: RoomsContext,
  { roomId }: MembershipRequest,
  rules: RoomVersionRules,
  chunk: readonly AuthorizedOutlier[],
): Promise<void> {
  await transaction(ctx.database, async (tx) => {
    await insertOrCorrectRoom(tx, { roomId, roomVersion: rules.version });
    await insertOutliers(tx, chunk);
  });
}

/** Events whose server's keys can't be had any more are left out; whatever is proved false condemns the answer. */
function checkEvents(ctx: RoomsContext, result: OutlierIntakeResult, refuse: Fail): void {
  for (const drop of result.dropped) {
    if (drop.kind !== "no-key") refuse(`holds ${drop.eventId ?? "an event"} that is ${drop.kind}: ${drop.reason}`);
    ctx.logger.warn({ ...drop }, "an event of a send_join answer was left out");
  }
  if (result.undecided.length === 0) return;
  const missing = [...result.missingAuthEvents];
  const unproved = missing.some((id) => !result.dropped.some((drop) => drop.eventId === id));
  if (unproved || missing.length === 0) {
    refuse(`lacks auth events: ${missing.slice(0, 5).join(", ") || "they name each other in a circle"}`);
  }
}

/** Without the creator's key nothing in the room can be proved: that is the cause, not what is missing for it. */
function checkCreatorsKey(result: OutlierIntakeResult, creates: readonly AuthorizedOutlier[], refuse: Fail): void {
  const [unproved] = result.dropped;
  if (creates.length === 0 && unproved !== undefined) {
    refuse(`can't be proved: ${unproved.eventId ?? "an event"}: ${unproved.reason}`);
  }
}

interface CreateEvents {
  readonly creates: readonly AuthorizedOutlier[];
  readonly stateIds: ReadonlySet<EventId>;
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
}

function checkCreateEvents({ creates, stateIds, roomId, rules }: CreateEvents, refuse: Fail): void {
  const [create] = creates;
  if (create === undefined) return refuse("has no create event");
  if (creates.length > 1) refuse("holds more than one create event");
  if (!stateIds.has(create.event.eventId)) refuse("has no create event in its state");
  if (create.rejection !== null) refuse(`has a create event that the auth rules refuse: ${create.rejection}`);
  const version = create.event.pdu.content["room_version"] ?? "1";
  if (version !== rules.version) {
    refuse(`is of room version ${JSON.stringify(version)}, make_join said ${rules.version}`);
  }
  if (create.event.roomId !== roomId) refuse("is of another room");
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
