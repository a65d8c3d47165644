import { isStateEvent, type Pdu } from "../../matrix/event.ts";
import { isUserId } from "../../matrix/identifiers.ts";
import { isJsonObject } from "../../matrix/json.ts";
import type { JsonObject, JsonValue } from "../../matrix/json.ts";
import type { Connection } from "../../storage/database.ts";
import { loadEvents } from "../../storage/events.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { lookUpManyInSnapshot } from "../../storage/state-snapshots.ts";

/** What helps somebody who is not in a room to tell what it is. */
const TYPES = [
  "m.room.create",
  "m.room.name",
  "m.room.avatar",
  "m.room.topic",
  "m.room.join_rules",
  "m.room.canonical_alias",
  "m.room.encryption",
] as const;

async function identifyingEvents(c: Connection, snapshotId: bigint): Promise<readonly StoredEvent[]> {
  const ids = await lookUpManyInSnapshot(
    c,
    snapshotId,
    TYPES.map((type) => [type, ""]),
  );
  return [...(await loadEvents(c, [...ids.values()])).values()];
}

/** @see https://spec.matrix.org/v1.19/client-server-api/#stripped-state */
export async function strippedState(c: Connection, snapshotId: bigint): Promise<readonly JsonObject[]> {
  return (await identifyingEvents(c, snapshotId)).map(stripped);
}

/**
 * The same for another server: since specification 1.16 as whole events, so that it can check the create event.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid
 */
export async function inviteRoomState(c: Connection, snapshotId: bigint): Promise<readonly JsonObject[]> {
  return (await identifyingEvents(c, snapshotId)).map(({ pdu }) => pdu);
}

export function stripped({ pdu }: StoredEvent): JsonObject {
  return { type: pdu.type, state_key: pdu.state_key ?? "", sender: pdu.sender, content: pdu.content };
}

/**
 * What another server tells of a room that we are not in, as clients are given it: four members of each state event,
 * whether it came stripped or whole. What is no state event is left out.
 */
export function strippedStateOf(events: readonly JsonValue[]): readonly JsonObject[] {
  return events.flatMap((event) => {
    if (!isJsonObject(event) || !isStateEvent(event as Pdu)) return [];
    const { type, sender, state_key: stateKey, content } = event;
    if (typeof type !== "string" || typeof stateKey !== "string" || !isUserId(sender)) return [];
    return isJsonObject(content) ? [{ type, sender, state_key: stateKey, content }] : [];
  });
}
