import { FederationFailure } from "../../src/federation-client/failures.ts";
import type { ServerName } from "../../src/matrix/identifiers.ts";
import type { RoomsContext } from "../../src/rooms/context.ts";
import { eventually } from "./sidecar-process.ts";

/**
 * A sidecar that gives up on a server's answer to its join at the worst moment: once the server has let it in. What
 * follows is a time-out's, but for the time.
 *
 * @param server whose answer is given up; those of other servers are waited for
 * @param isLetIn whether the server counts us among the members
 */
export function givingUpOnceLetIn(ctx: RoomsContext, server: ServerName, isLetIn: () => boolean): RoomsContext {
  const { federation } = ctx;
  return {
    ...ctx,
    federation: {
      ...federation,
      sendJoin: async (destination, request, options) => {
        if (destination !== server) return federation.sendJoin(destination, request, options);
        const impatience = new AbortController();
        const answered = federation.sendJoin(destination, request, { ...options, signal: impatience.signal });
        const gaveUp = eventually(() => isLetIn() || undefined).then(() => {
          impatience.abort(new FederationFailure({ kind: "timeout", server, reason: "no answer in time" }));
        });
        const [answer] = await Promise.all([answered, gaveUp]);
        return answer;
      },
    },
  };
}
