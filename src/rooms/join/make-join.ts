import { FederationFailure, isUnknownEndpoint } from "../../federation-client/failures.ts";
import { MatrixError } from "../../federation-api/matrix-error.ts";
import { isServerName, serverNameOf, type RoomId, type ServerName, type UserId } from "../../matrix/identifiers.ts";
import { isJsonObject, type JsonObject } from "../../matrix/json.ts";
import { ROOM_VERSIONS, type RoomVersionRules } from "../../matrix/room-versions.ts";
import { rulesOfTemplate, type Fail, type MembershipRequest } from "./complete-template.ts";
import type { RoomsContext } from "../context.ts";

/** A resident server's proposal of a join event, checked to be about what was asked. */
export interface JoinTemplate {
  readonly server: ServerName;
  readonly rules: RoomVersionRules;
  readonly event: JsonObject;
  /** The only server that can complete a restricted join: the authorising user's. */
  readonly authorisedVia?: ServerName;
}

/**
 * Asks a resident server for a join template.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid
 * @throws FederationFailure; a template that is not about what was asked is a `bad-response`
 */
export async function makeJoin(
  ctx: RoomsContext,
  server: ServerName,
  request: MembershipRequest,
): Promise<JoinTemplate> {
  const { roomId, userId } = request;
  const answer = await ctx.federation.makeJoin(
    server,
    { roomId, userId, versions: ROOM_VERSIONS },
    { ignoreBackOff: true },
  );
  const fail: Fail = (reason) => {
    throw new FederationFailure({ kind: "bad-response", server, reason: `its make_join template ${reason}` });
  };
  const rules = rulesOfTemplate(answer, request, fail);
  const { event } = answer;
  const content = isJsonObject(event["content"]) ? event["content"] : fail("has no content");
  if (content["membership"] !== "join") fail("does not join");
  const authoriser = content["join_authorised_via_users_server"];
  if (typeof authoriser !== "string") return { server, rules, event };
  const authorisedVia = serverNameOf(authoriser as UserId);
  if (authorisedVia === ctx.serverName) fail(`has ${authoriser} vouch, a user of ours`);
  return { server, rules, event, ...(isServerName(authorisedVia) ? { authorisedVia } : {}) };
}

/**
 * Whether another resident server may do better, after make_join failed at this one: it is in trouble, unknown to us,
 * only partially joined itself (404 `M_NOT_FOUND`), or has no user who could authorise a restricted join.
 */
export function mayFailOverMakeJoin(failure: FederationFailure): boolean {
  if (failure.status === 404 && failure.errcode === "M_NOT_FOUND") return true;
  return mayFailOverSendJoin(failure);
}

/** The same after send_join: a refusal of the join itself is final. */
export function mayFailOverSendJoin(failure: FederationFailure): boolean {
  if (failure.kind !== "refused") return true;
  if (isUnknownEndpoint(failure) || (failure.status ?? 500) >= 500 || failure.status === 429) return true;
  return failure.errcode === "M_UNABLE_TO_AUTHORISE_JOIN" || failure.errcode === "M_UNABLE_TO_GRANT_JOIN";
}

/** What the user is told when no server let us in, or took our knock. */
export function handshakeFailed(
  what: "join" | "knock on",
  roomId: RoomId,
  failures: readonly FederationFailure[],
): MatrixError {
  const last = failures.at(-1);
  const causes = failures.map((failure) => failure.message).join("; ");
  if (last?.kind === "refused" && last.status !== undefined && last.status < 500) {
    return new MatrixError(last.status, last.errcode ?? "M_UNKNOWN", `Could not ${what} ${roomId}: ${causes}`);
  }
  return new MatrixError(502, "M_UNKNOWN", `Could not ${what} ${roomId}: ${causes || "no server is known for it"}`);
}
