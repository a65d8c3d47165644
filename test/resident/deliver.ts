import { MAX_TRANSACTION_PDUS, paths } from "../../src/federation-api/endpoints.ts";
import type { EventId, ServerName } from "../../src/matrix/identifiers.ts";
import type { JsonValue } from "../../src/matrix/json.ts";
import { mustHave } from "./hosted-room.ts";
import type { HostedRoom } from "./hosted-room.ts";
import { callServer } from "./outbound.ts";
import type { Reply } from "./outbound.ts";
import type { World } from "./world.ts";

export interface Delivery {
  readonly room: HostedRoom;
  /** In the order in which they are to stand in the transaction. */
  readonly eventIds: readonly EventId[];
  readonly to: readonly ServerName[];
  readonly origin: ServerName;
}

/** What became of one transaction: the answer, or why there is none. */
export type DeliveryResult = { readonly to: ServerName } & (Reply | { readonly failed: string });

let transactions = 0;

/** Sends events of a room, one transaction a server (more beyond 50 events), tried once. Never throws for a server. */
export async function deliver(world: World, delivery: Delivery): Promise<DeliveryResult[]> {
  const pdus = delivery.eventIds.map((id): JsonValue => mustHave(delivery.room, id).event.pdu);
  return await sendPdus(world, { ...delivery, pdus });
}

/** The same with any PDUs, which the room need not hold. */
export async function sendPdus(
  world: World,
  { pdus, to, origin }: Pick<Delivery, "to" | "origin"> & { readonly pdus: readonly JsonValue[] },
): Promise<DeliveryResult[]> {
  const results = await Promise.all(to.map((destination) => sendInOrder(world, { origin, destination, pdus })));
  return results.flat();
}

async function sendInOrder(
  world: World,
  { origin, destination, pdus }: { origin: ServerName; destination: ServerName; pdus: readonly JsonValue[] },
): Promise<DeliveryResult[]> {
  const results: DeliveryResult[] = [];
  for (let at = 0; at < pdus.length; at += MAX_TRANSACTION_PDUS) {
    transactions += 1;
    const content = {
      origin,
      origin_server_ts: Date.now(),
      pdus: pdus.slice(at, at + MAX_TRANSACTION_PDUS),
    };
    const uri = paths.send(`${Date.now()}-${transactions}`);
    try {
      results.push({
        to: destination,
        ...(await callServer(world, { origin, destination, method: "PUT", uri, content })),
      });
    } catch (error) {
      results.push({ to: destination, failed: error instanceof Error ? error.message : String(error) });
    }
  }
  return results;
}
