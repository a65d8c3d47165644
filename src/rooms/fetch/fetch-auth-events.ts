import { FederationFailure } from "../../federation-client/failures.ts";
import type { ReadBudget } from "../../federation-client/read-budget.ts";
import type { Event } from "../../matrix/event.ts";
import type { ServerName } from "../../matrix/identifiers.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import type { RoomsContext } from "../context.ts";
import { authEventIdsWithCreate } from "../events/authorize-outliers.ts";
import { fetchEvents, notStored } from "./fetch-events.ts";

interface EventToAuthorize {
  readonly event: Event;
  readonly rules: RoomVersionRules;
  /** Asked one after the other, until nothing is missing. */
  readonly servers: readonly ServerName[];
  /** What may be read of them, with whatever else is asked of them in this attempt. */
  readonly budget?: ReadBudget;
}

/** Fetches the auth events of an event that are not stored yet. Those that can't be had leave the event waiting. */
export async function fetchAuthEvents(ctx: RoomsContext, request: EventToAuthorize): Promise<void> {
  const { event, rules, servers, budget } = request;
  const { roomId, eventId } = event;
  const within = budget === undefined ? {} : { budget };
  let missing = await notStored(ctx, authEventIdsWithCreate(event, rules));
  for (const server of servers) {
    if (missing.length === 0) return;
    if (server === ctx.serverName || server === "") continue;
    try {
      await fetchEvents(ctx, { roomId, rules, server, eventIds: missing, ...within });
    } catch (error) {
      if (!(error instanceof FederationFailure)) throw error;
      ctx.logger.info({ err: error, roomId, eventId }, "a server did not give the auth events of an event");
    }
    missing = await notStored(ctx, missing);
  }
}
