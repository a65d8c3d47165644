import type { RoomsContext } from "../src/rooms/context.ts";
import { createReconcileActivities } from "./reconcile-activities.ts";
import { createResyncActivities } from "./resync-activities.ts";

/** The activities of the worker; workflows know them by this type alone. */
export function createActivities(ctx: RoomsContext) {
  return { ...createResyncActivities(ctx), ...createReconcileActivities(ctx) };
}

export type Activities = ReturnType<typeof createActivities>;
