import { FederationFailure } from "../../federation-client/failures.ts";
import { serverNameOf, type ServerName, type UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";

/** Why a server's users are missing from an answer to a client. */
export type KeyFailures = Readonly<Record<ServerName, JsonObject>>;

/** Groups what is wanted of users by their servers. */
export function byServer<T>(wanted: ReadonlyMap<UserId, T>): Map<ServerName, Map<UserId, T>> {
  const servers = new Map<ServerName, Map<UserId, T>>();
  for (const [userId, one] of wanted) {
    const server = serverNameOf(userId) ?? "";
    const users = servers.get(server) ?? new Map<UserId, T>();
    servers.set(server, users.set(userId, one));
  }
  return servers;
}

/**
 * Asks all servers at the same time; one that fails is named among the failures, and the others' answers stand.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
 */
export async function askServers<Wanted, Answer>(
  servers: ReadonlyMap<ServerName, Wanted>,
  ask: (server: ServerName, wanted: Wanted) => Promise<Answer>,
): Promise<{ readonly answers: readonly Answer[]; readonly failures: KeyFailures }> {
  const failures: Record<ServerName, JsonObject> = {};
  const answers = await Promise.all(
    [...servers].map(async ([server, wanted]) => {
      try {
        return [await ask(server, wanted)];
      } catch (error) {
        if (!(error instanceof FederationFailure)) throw error;
        failures[server] = { errcode: error.errcode ?? "M_UNKNOWN", error: error.message };
        return [];
      }
    }),
  );
  return { answers: answers.flat(), failures };
}
