import type { Logger } from "pino";
import type { ApplicationService } from "../appservice-client/registration.ts";
import type { AppserviceClient } from "../appservice-client/client.ts";
import type { FederationClient } from "../federation-client/client.ts";
import type { KeyRing } from "../federation-client/key-ring.ts";
import type { EventId, RoomId, ServerName } from "../matrix/identifiers.ts";
import type { RoomVersion } from "../matrix/room-versions.ts";
import type { SigningKey } from "../matrix/signatures.ts";
import type { Database } from "../storage/database.ts";
import type { Reach } from "./failpoints.ts";

/** The workflow engine as the use cases see it: the database row is the truth, this only sets work going. */
export interface ResyncStarter {
  /**
   * Starts the room's resync, or leaves the running one of this join alone; one of an older join is replaced, and with
   * `replace` any one.
   */
  start(roomId: RoomId, joinEventId: EventId, options?: { readonly replace: boolean }): Promise<void>;
  /** Has a resync that waits look again at once, if one runs: the room has changed. */
  wake(roomId: RoomId): Promise<void>;
  /** Cancels the room's resync, if one runs. */
  cancel(roomId: RoomId): Promise<void>;
}

/** The application services of the registration files, and how they are reached. */
export interface Appservices {
  readonly services: readonly ApplicationService[];
  readonly client: AppserviceClient;
}

/** What every use case is given as its first argument. */
export interface RoomsContext {
  readonly serverName: ServerName;
  readonly signingKey: SigningKey;
  readonly database: Database;
  readonly federation: FederationClient;
  readonly keyRing: KeyRing;
  readonly resyncs: ResyncStarter;
  /** Absent where there are none. */
  readonly appservices?: Appservices;
  readonly logger: Logger;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** How long a look-up waits for the full state, in milliseconds. */
  readonly fullStateWaitMs: number;
  readonly defaultRoomVersion: RoomVersion;
  /** What stands at the failpoints; absent but in tests. */
  readonly reach?: Reach;
}
