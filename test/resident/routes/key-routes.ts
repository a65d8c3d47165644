import { paths } from "../../../src/federation-api/endpoints.ts";
import type { ServerName } from "../../../src/matrix/identifiers.ts";
import { isJsonObject } from "../../../src/matrix/json.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import { signJson } from "../../../src/matrix/signatures.ts";
import { identityOf } from "../identities.ts";
import { callServer } from "../outbound.ts";
import { bodyOf, ok } from "../visit.ts";
import type { Handler, Visit } from "../visit.ts";
import { isOurs } from "../world.ts";
import type { World } from "../world.ts";

const DAY_MS = 86_400_000;

function keysOfOurs(world: World, server: ServerName): JsonObject {
  const key = identityOf(world.seed, server);
  const base64 = Buffer.from(key.publicKey).toString("base64").replace(/=+$/, "");
  const keys = {
    server_name: server,
    valid_until_ts: Date.now() + DAY_MS,
    verify_keys: { [key.keyId]: { key: base64 } },
    old_verify_keys: {},
  };
  return signJson(keys, server, key);
}

function isHidden(visit: Visit, server: ServerName): boolean {
  return visit.troubles.some((trouble) => trouble.kind === "no-keys" && trouble.servers.includes(server));
}

export const serverKeys: Handler = (visit) => {
  const { world, front } = visit;
  if (isHidden(visit, front.serverName)) return { status: 404, body: { errcode: "M_NOT_FOUND", error: "no keys" } };
  return ok(keysOfOurs(world, front.serverName));
};

/** As notary: the keys of all our servers, and of any other that gives them to us. */
export const queryKeys: Handler = async (visit) => {
  const { world, front } = visit;
  const wanted = bodyOf(visit)["server_keys"];
  const servers = Object.keys(isJsonObject(wanted) ? wanted : {}).filter((server) => !isHidden(visit, server));
  const found = await Promise.all(servers.map((server) => keysOf(world, front.serverName, server)));
  const signed = found.filter((keys) => keys !== undefined).map((keys) => signJson(keys, front.serverName, front.key));
  return ok({ server_keys: signed });
};

async function keysOf(world: World, origin: ServerName, server: ServerName): Promise<JsonObject | undefined> {
  if (isOurs(world, server)) return keysOfOurs(world, server);
  try {
    const call = { origin, destination: server, method: "GET", uri: paths.serverKeys() } as const;
    const { status, body } = await callServer(world, call);
    return status === 200 && isJsonObject(body) ? body : undefined;
  } catch {
    // A notary leaves out the servers that it can't reach.
    return undefined;
  }
}

export const version: Handler = () => ok({ server: { name: "Resident", version: "1" } });
