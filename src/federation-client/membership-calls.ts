import { paths } from "../federation-api/endpoints.ts";
import type { SendJoinSummary } from "../federation-api/endpoints.ts";
import { callServer, jsonCall } from "./call-server.ts";
import type { CallContext } from "./call-server.ts";
import type { FederationClient, OnEvent } from "./client.ts";
import { readLargeJson } from "./large-json.ts";
import {
  knockRoomStateOf,
  membershipTemplateOf,
  SEND_JOIN_MEMBERS,
  sendJoinSummaryOf,
  signedInviteOf,
} from "./read-answers.ts";
import { get, LARGE, put, QUICK } from "./requests.ts";

async function streamSendJoin(body: AsyncIterable<Uint8Array>, onEvent: OnEvent): Promise<SendJoinSummary> {
  const members = await readLargeJson(body, {
    lists: ["state", "auth_chain"],
    members: SEND_JOIN_MEMBERS,
    onElement: (list, pdu) => onEvent(list === "state" ? "state" : "auth_chain", pdu),
  });
  return sendJoinSummaryOf(members);
}

type MembershipCalls = Pick<
  FederationClient,
  "makeJoin" | "sendJoin" | "makeKnock" | "sendKnock" | "makeLeave" | "sendLeave" | "invite"
>;

/** Joining, knocking, leaving, inviting. */
export function membershipCalls(context: CallContext): MembershipCalls {
  return {
    makeJoin: (server, { roomId, userId, versions }, options) =>
      callServer(
        context,
        server,
        jsonCall(get(paths.makeJoin(roomId, userId, versions)), QUICK, membershipTemplateOf),
        options,
      ),
    sendJoin: (server, { roomId, eventId, pdu, omitMembers, onEvent }, options) => {
      const request = put(paths.sendJoin(roomId, eventId, omitMembers), pdu);
      const read = (body: AsyncIterable<Uint8Array>): Promise<SendJoinSummary> => streamSendJoin(body, onEvent);
      return callServer(context, server, { request, limits: LARGE, read }, options);
    },
    makeKnock: (server, { roomId, userId, versions }, options) =>
      callServer(
        context,
        server,
        jsonCall(get(paths.makeKnock(roomId, userId, versions)), QUICK, membershipTemplateOf),
        options,
      ),
    sendKnock: (server, { roomId, eventId, pdu }, options) =>
      callServer(
        context,
        server,
        jsonCall(put(paths.sendKnock(roomId, eventId), pdu), QUICK, knockRoomStateOf),
        options,
      ),
    makeLeave: (server, { roomId, userId }, options) =>
      callServer(context, server, jsonCall(get(paths.makeLeave(roomId, userId)), QUICK, membershipTemplateOf), options),
    sendLeave: (server, { roomId, eventId, pdu }, options) =>
      callServer(
        context,
        server,
        jsonCall(put(paths.sendLeave(roomId, eventId), pdu), QUICK, () => undefined),
        options,
      ),
    invite: (server, { roomId, eventId, roomVersion, pdu, inviteRoomState }, options) => {
      const content = { room_version: roomVersion, event: pdu, invite_room_state: inviteRoomState };
      return callServer(
        context,
        server,
        jsonCall(put(paths.invite(roomId, eventId), content), QUICK, signedInviteOf),
        options,
      );
    },
  };
}
