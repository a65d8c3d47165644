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

/** Notes that a server has not given all that it was asked for. */
export type NoteFailure = (failure: FederationFailure) => void;

/**
 * Asks all servers at the same time; one that fails is named among the failures, and the others' answers stand. So does
 * what a server has given before it failed, where the failure is noted instead of thrown.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
 */
export async function askServers<Wanted, Answer>(
  servers: ReadonlyMap<ServerName, Wanted>,
  ask: (server: ServerName, wanted: Wanted, note: NoteFailure) => Promise<Answer>,
): Promise<{ readonly answers: readonly Answer[]; readonly failures: KeyFailures }> {
  const failures: Record<ServerName, JsonObject> = {};
  const note: NoteFailure = ({ server, errcode, message }) => {
    failures[server] = { errcode: errcode ?? "M_UNKNOWN", error: message };
  };
  const answers = await Promise.all(
    [...servers].map(async ([server, wanted]) => {
      try {
        return [await ask(server, wanted, note)];
      } catch (error) {
        if (!(error instanceof FederationFailure)) throw error;
        note(error);
        return [];
      }
    }),
  );
  return { answers: answers.flat(), failures };
}
