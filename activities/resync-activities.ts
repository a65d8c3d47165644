import type { EventId, RoomId } from "../src/matrix/identifiers.ts";
import type { RoomsContext } from "../src/rooms/context.ts";
import { recordCancelled } from "../src/rooms/resync/resync-cancelled.ts";
import { finishResync, type ResyncFinished } from "../src/rooms/resync/resync-finish.ts";
import { nextResyncStep, type ResyncStep, type ResyncTarget } from "../src/rooms/resync/resync-next-step.ts";
import { repairAll } from "../src/rooms/resync/repair-all.ts";
import type { EventsRepaired } from "../src/rooms/resync/resync-repair-events.ts";
import { serversForResync } from "../src/rooms/resync/resync-servers.ts";
import { acting } from "./acting.ts";
import { fetchOutcome, type FetchOutcome } from "./fetch-outcome.ts";
import { withHeartbeat } from "./heartbeat.ts";
import { createIdsLeftReporter } from "./report-ids-left.ts";

/** As workflows carry it. */
export interface ActivityTarget {
  readonly roomId: string;
  readonly joinEventId: string;
}

/** The resync's steps. Each does one batch, may be repeated, and stores what it has done before it returns. */
export function createResyncActivities(ctx: RoomsContext) {
  return {
    /** With the servers to ask, where something is to be fetched. */
    async nextResyncStep(target: ActivityTarget): Promise<ResyncStep & { readonly servers?: readonly string[] }> {
      return await acting(ctx, "say a resync's next step", async () => {
        const step = await nextResyncStep(ctx, targetOf(target));
        return step.kind === "fetch" ? { ...step, servers: await serversForResync(ctx, targetOf(target)) } : step;
      });
    },

    /** Anew, when those that came with a step have grown old. It changes nothing. */
    async listServers(target: ActivityTarget): Promise<readonly string[]> {
      return await withHeartbeat(() => serversForResync(ctx, targetOf(target)));
    },

    async fetchMissingState(
      input: ActivityTarget & { readonly eventId: string; readonly server: string },
    ): Promise<FetchOutcome & { readonly next?: ResyncStep }> {
      const report = createIdsLeftReporter();
      return await acting(ctx, "report a fetched state", async (signal, note) => {
        const onProgress = (idsLeft: number): void => {
          note({ idsLeft });
          report(idsLeft);
        };
        const eventId = input.eventId as EventId;
        const request = { ...targetOf(input), eventId, server: input.server, signal, onProgress };
        const outcome = await fetchOutcome(ctx, request);
        // Each step that need not be asked for saves a way to Temporal and back.
        return outcome.kind === "complete" ? { ...outcome, next: await nextResyncStep(ctx, targetOf(input)) } : outcome;
      });
    },

    async repairEvents(
      input: ActivityTarget & { readonly eventIds: readonly string[] },
    ): Promise<EventsRepaired & { readonly next?: ResyncStep }> {
      return await acting(ctx, "report repaired events", async (signal, note) => {
        const eventIds = input.eventIds as readonly EventId[];
        let batches = 0;
        return await repairAll(ctx, targetOf(input), eventIds, () => {
          signal.throwIfAborted();
          batches += 1;
          note({ batches });
        });
      });
    },

    async finishResync(target: ActivityTarget): Promise<ResyncFinished> {
      return await acting(ctx, "report a finished resync", (signal) => finishResync(ctx, targetOf(target), signal));
    },

    async recordCancelled(target: ActivityTarget): Promise<void> {
      await acting(ctx, "report a cancelled resync", () => recordCancelled(ctx, targetOf(target)));
    },
  };
}

function targetOf({ roomId, joinEventId }: ActivityTarget): ResyncTarget {
  return { roomId: roomId as RoomId, joinEventId: joinEventId as EventId };
}
