import type { JsonObject } from "../matrix/json.ts";
import type { Connection } from "../storage/database.ts";
import { loadEvents } from "../storage/events.ts";
import type { StoredEvent } from "../storage/events.ts";
import { lookUpManyInSnapshot } from "../storage/state-snapshots.ts";

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

/** @see https://spec.matrix.org/v1.19/client-server-api/#stripped-state */
export async function strippedState(c: Connection, snapshotId: bigint): Promise<readonly JsonObject[]> {
  const ids = await lookUpManyInSnapshot(
    c,
    snapshotId,
    TYPES.map((type) => [type, ""]),
  );
  return [...(await loadEvents(c, [...ids.values()])).values()].map(stripped);
}

export function stripped({ pdu }: StoredEvent): JsonObject {
  return { type: pdu.type, state_key: pdu.state_key ?? "", sender: pdu.sender, content: pdu.content };
}
