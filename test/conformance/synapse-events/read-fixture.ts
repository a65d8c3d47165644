import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import { parseJson } from "../../../src/matrix/json.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import type { RoomVersion } from "../../../src/matrix/room-versions.ts";
import type { KeyLookup } from "../../../src/matrix/signatures.ts";

/** A room that two real Synapses made together; its events follow on each other in one line. */
export interface SynapseRoom {
  readonly keys: KeyLookup;
  readonly events: readonly { readonly eventId: EventId; readonly pdu: JsonObject }[];
}

interface Fixture extends JsonObject {
  readonly keys: { readonly [server: string]: { readonly [keyId: string]: string } };
  readonly events: readonly { readonly event_id: EventId; readonly pdu: JsonObject }[];
}

export function readSynapseRoom(version: RoomVersion): SynapseRoom {
  const text = readFileSync(join(import.meta.dirname, `room-version-${version}.json`), "utf8");
  const fixture = parseJson(text) as Fixture;
  return {
    keys: (server, keyId) => {
      const key = fixture.keys[server]?.[keyId];
      return key && { publicKey: Buffer.from(key, "base64"), validUntilTs: Number.MAX_SAFE_INTEGER };
    },
    events: fixture.events.map(({ event_id: eventId, pdu }) => ({ eventId, pdu })),
  } as SynapseRoom;
}
