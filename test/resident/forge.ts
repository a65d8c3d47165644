import type { Pdu } from "../../src/matrix/event.ts";
import type { EventId, UserId } from "../../src/matrix/identifiers.ts";
import { serverNameOf } from "../../src/matrix/identifiers.ts";
import { hashAndSignEvent } from "../../src/matrix/signatures.ts";
import { composeEvent, hostedEvent, type Draft } from "./compose-event.ts";
import type { HostedEvent, HostedRoom } from "./hosted-room.ts";
import type { Resident } from "./resident.ts";
import { identityIn } from "./world.ts";

/** An id as they look, of no event. */
export function madeUpId(seed: string): EventId {
  return `$${seed.padEnd(43, "x").slice(0, 43)}`;
}

/**
 * An event like an honest one but for what is changed, well hashed and well signed by its sender's server. The room does
 * not hold it.
 */
export function forge(
  resident: Resident,
  room: HostedRoom,
  draft: Draft & { readonly changes: Partial<Pdu> & { readonly event_id?: EventId } },
): HostedEvent {
  const identity = identityIn(resident.world);
  const { changes, ...honest } = draft;
  const { event } = composeEvent(room, identity, honest);
  const { hashes: _hashes, signatures: _signatures, ...bare } = event.pdu;
  const server = serverNameOf(draft.sender) ?? "";
  const pdu = hashAndSignEvent({ ...bare, ...changes } as Pdu, server, identity(server), room.rules);
  return hostedEvent(room.rules, pdu, room.roomId);
}

/** The resident serves the event to whoever asks for it by name or by gap, as if it were of the room. */
export function serveForged(room: HostedRoom, forged: HostedEvent): void {
  room.events.set(forged.event.eventId, forged);
}

/** Messages one upon the other, the first of which builds on an event that nobody has: oldest first. */
export function forgeChain(
  resident: Resident,
  room: HostedRoom,
  { sender, length, root }: { readonly sender: UserId; readonly length: number; readonly root: EventId },
): readonly HostedEvent[] {
  const chain: HostedEvent[] = [];
  let prev = root;
  for (let index = 0; index < length; index += 1) {
    const forged = forge(resident, room, {
      sender,
      type: "m.room.message",
      content: { msgtype: "m.text", body: `forged ${index}` },
      changes: { prev_events: [prev], depth: 1_000_000 + index },
    });
    chain.push(forged);
    prev = forged.event.eventId;
  }
  return chain;
}
