import { paths } from "../../src/federation-api/endpoints.ts";
import type { ServerName } from "../../src/matrix/identifiers.ts";
import { isJsonObject } from "../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";
import type { DeliveryResult } from "./deliver.ts";
import { callServer } from "./outbound.ts";
import type { World } from "./world.ts";

/** An EDU that one of the fronts was sent. */
export interface ReceivedEdu {
  readonly origin: ServerName;
  readonly to: ServerName;
  readonly txnId: string;
  readonly type: string;
  readonly content: JsonObject;
}

export function receivedEdus(world: World): readonly ReceivedEdu[] {
  return world.fronts.flatMap((front) =>
    front.transactions.flatMap(({ origin, txnId, edus }) =>
      edus.filter(isJsonObject).map((edu) => ({
        origin,
        to: front.serverName,
        txnId,
        type: typeof edu["edu_type"] === "string" ? edu["edu_type"] : "",
        content: isJsonObject(edu["content"]) ? edu["content"] : {},
      })),
    ),
  );
}

interface EduDelivery {
  readonly origin: ServerName;
  readonly to: readonly ServerName[];
  readonly edus: readonly JsonValue[];
  readonly pdus: readonly JsonValue[];
}

let transactions = 0;

/** One transaction a server, tried once; it may hold what no server would send. Never throws for a server. */
export async function sendEdus(world: World, { origin, to, edus, pdus }: EduDelivery): Promise<DeliveryResult[]> {
  return await Promise.all(
    to.map(async (destination): Promise<DeliveryResult> => {
      transactions += 1;
      const uri = paths.send(`edus-${Date.now()}-${transactions}`);
      const content = { origin, origin_server_ts: Date.now(), pdus, edus };
      try {
        return { to: destination, ...(await callServer(world, { origin, destination, method: "PUT", uri, content })) };
      } catch (error) {
        return { to: destination, failed: error instanceof Error ? error.message : String(error) };
      }
    }),
  );
}
