import type { RoomId } from "../matrix/identifiers.ts";

/** Rooms with the position since which each is asked about, and the one up to which all are. */
export interface RoomsSince {
  readonly roomIds: readonly RoomId[];
  /** Beside `roomIds`. */
  readonly since: readonly bigint[];
  readonly to: bigint;
}
