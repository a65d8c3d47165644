import type { Router } from "express";
import type { JsonObject } from "../matrix/json.ts";
import type { RoomId } from "../matrix/identifiers.ts";
import type { ReadContext } from "../rooms/read/full-state-wait.ts";

/** Who may make an account: anyone, those who know the secret, or only the operator. */
export type Registration =
  | { readonly kind: "open" }
  | { readonly kind: "secret"; readonly secret: string }
  | { readonly kind: "closed" };

/** What the client listener needs beyond the use cases' context. */
export interface ClientApiContext extends ReadContext {
  readonly registration: Registration;
  /** What is known of the room's resync, for the error that says the full state is still missing. */
  readonly resyncProgress: (roomId: RoomId) => Promise<JsonObject | undefined>;
  /** Mounted before the Matrix endpoints: the operator's API, health, readiness, metrics. */
  readonly extraRouters?: readonly Router[];
}
