import { MatrixError } from "../../../src/federation-api/matrix-error.ts";
import type { Pdu } from "../../../src/matrix/event.ts";
import { eventIdOf } from "../../../src/matrix/hashes.ts";
import { serverNameOf } from "../../../src/matrix/identifiers.ts";
import type { UserId } from "../../../src/matrix/identifiers.ts";
import { isJsonObject } from "../../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../../src/matrix/json.ts";
import { rulesOf } from "../../../src/matrix/room-versions.ts";
import { signEvent } from "../../../src/matrix/signatures.ts";
import { admitEvent } from "../admit-event.ts";
import { bodyOf, ok } from "../visit.ts";
import type { Handler, Visit } from "../visit.ts";
import { identityIn, isOurs } from "../world.ts";

function listIn(body: JsonObject, name: string): readonly JsonValue[] {
  const list = body[name];
  return Array.isArray(list) ? (list as readonly JsonValue[]) : [];
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid */
export const send: Handler = async (visit) => {
  const { front, origin = "" } = visit;
  const body = bodyOf(visit);
  const txnId = visit.path["txn"] ?? "";
  const pdus = listIn(body, "pdus");
  const repeated = front.transactions.some((one) => one.origin === origin && one.txnId === txnId);
  if (!repeated) front.transactions.push({ origin, txnId, pdus, edus: listIn(body, "edus"), at: Date.now() });
  const results: Record<string, JsonObject> = {};
  for (const pdu of pdus) {
    const [eventId, result] = await receiveOne(visit, pdu);
    results[eventId] = result;
  }
  return ok({ pdus: results });
};

async function receiveOne(visit: Visit, value: JsonValue): Promise<[string, JsonObject]> {
  const { world, origin = "" } = visit;
  const pdu = (isJsonObject(value) ? value : {}) as Pdu;
  const room = pdu.room_id === undefined ? undefined : world.rooms.get(pdu.room_id);
  if (room === undefined) return ["$unknown", { error: "unknown room" }];
  const eventId = eventIdOf(pdu, room.rules);
  try {
    await admitEvent({ world, room, origin }, pdu);
    return [eventId, {}];
  } catch (error) {
    if (!(error instanceof MatrixError)) throw error;
    return [eventId, { error: error.message }];
  }
}

/** A virtual user accepts every invitation, with its server's signature. */
export const invite: Handler = (visit) => {
  const body = bodyOf(visit);
  const version = body["room_version"];
  const rules = typeof version === "string" ? rulesOf(version) : undefined;
  const pdu = body["event"] as Pdu;
  const server = serverNameOf(pdu.state_key as UserId) ?? "";
  if (rules === undefined || !isOurs(visit.world, server)) {
    throw new MatrixError(400, "M_INCOMPATIBLE_ROOM_VERSION", "unknown version or user");
  }
  return ok({ event: signEvent(pdu, server, identityIn(visit.world)(server), rules) });
};

export const profile: Handler = (visit) => {
  const user = visit.query.get("user_id") ?? "";
  return ok({ displayname: user.slice(1).split(":")[0] ?? "" });
};

export const directory: Handler = (visit) => {
  const alias = visit.query.get("room_alias") ?? "";
  const [room] = visit.world.rooms.values();
  if (room === undefined || !alias.startsWith("#room:")) {
    throw new MatrixError(404, "M_NOT_FOUND", "Room alias not found.");
  }
  return ok({ room_id: room.roomId, servers: visit.world.fronts.map((front) => front.serverName) });
};
