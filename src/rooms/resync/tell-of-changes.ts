import { serverNameOf, type EventId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { stateKeyOf } from "../../matrix/state.ts";
import type { Connection } from "../../storage/database.ts";
import { loadEvents, type StoredEvent } from "../../storage/events.ts";
import { withdrawFromOutbox } from "../../storage/outbox.ts";
import { appendResyncEventChanges, type ResyncEventChange } from "../../storage/resync-event-changes.ts";
import { loadRoom } from "../../storage/rooms.ts";
import { lookUpManyInSnapshot } from "../../storage/state-snapshots.ts";
import { appendCurrentStateDeltas } from "../../storage/streams.ts";
import { appendToDevice } from "../../storage/to-device.ts";
import type { RoomsContext } from "../context.ts";
import type { StateSource } from "../events/state-before-event.ts";

/**
 * The to-device message by which a user of ours is told that the full state refuses an event of theirs: nothing of the
 * specification says so, and a client that doesn't know the type passes it over.
 */
const EVENT_REFUSED = "org.fastjoin.event_refused";

/**
 * Notes what the full state has changed, for whoever asks later, and tells the senders of ours whose events it refuses:
 * they were answered that all was well. A rejected event of ours is sent to no further server; a soft-failed one is,
 * since each server decides that for itself.
 */
export async function tellOfChanges(
  ctx: RoomsContext,
  { tx, roomId }: StateSource,
  { streamId, changes }: { readonly streamId: bigint; readonly changes: readonly ResyncEventChange[] },
): Promise<void> {
  if (changes.length === 0) return;
  await appendResyncEventChanges(tx, { streamId, roomId, at: ctx.now() }, changes);
  const refused = changes.filter(({ change }) => change !== "accepted");
  const events = await loadEvents(
    tx,
    refused.map(({ eventId }) => eventId),
  );
  await tellWhatStands(tx, { streamId, roomId }, [...events.values()]);
  const ours = ourEvents(ctx, events, refused);
  if (ours.length === 0) return;
  const rejected = ours.filter(({ change }) => change.change === "rejected");
  await withdrawFromOutbox(
    tx,
    rejected.map(({ event }) => event.eventId),
  );
  const messages = ours.map(({ event, change }) => {
    const { sender } = event.pdu;
    return { userId: sender, deviceId: "*", sender, type: EVENT_REFUSED, content: noticeOf(event, change) };
  });
  await appendToDevice(tx, { streamId, messages });
}

/**
 * Clients have seen the refused state events in the timeline, and hold them for the room's state even where they never
 * were: where state resolution had decided otherwise. So what stands under their keys is told, changed or not.
 */
async function tellWhatStands(
  tx: Connection,
  { streamId, roomId }: { readonly streamId: bigint; readonly roomId: StoredEvent["roomId"] },
  refused: readonly StoredEvent[],
): Promise<void> {
  const snapshotId = (await loadRoom(tx, roomId))?.currentSnapshotId ?? null;
  const keys = refused.flatMap(({ eventId, pdu: { type, state_key: stateKey } }) =>
    stateKey === undefined ? [] : [{ eventId, type, stateKey }],
  );
  if (snapshotId === null || keys.length === 0) return;
  const standing = await lookUpManyInSnapshot(
    tx,
    snapshotId,
    keys.map(({ type, stateKey }) => [type, stateKey] as const),
  );
  const told = keys.map(({ eventId, type, stateKey }) => {
    const key = stateKeyOf(type, stateKey);
    return { key, eventId: standing.get(key) ?? null, previousEventId: eventId };
  });
  await appendCurrentStateDeltas(tx, { streamId, roomId }, told);
}

interface OwnChange {
  readonly event: StoredEvent;
  readonly change: ResyncEventChange;
}

function ourEvents(
  ctx: RoomsContext,
  events: ReadonlyMap<EventId, StoredEvent>,
  changes: readonly ResyncEventChange[],
): readonly OwnChange[] {
  return changes.flatMap((change) => {
    const event = events.get(change.eventId);
    return event !== undefined && serverNameOf(event.pdu.sender) === ctx.serverName ? [{ event, change }] : [];
  });
}

function noticeOf({ roomId, eventId, pdu }: StoredEvent, { change, rule, reason }: ResyncEventChange): JsonObject {
  return { room_id: roomId, event_id: eventId, event_type: pdu.type, outcome: change, rule, reason };
}
