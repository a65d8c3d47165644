import type { Event } from "../../matrix/event.ts";
import type { UserId } from "../../matrix/identifiers.ts";
import type { Connection } from "../../storage/database.ts";
import { untilNoEarlyOutlierIsDeleted } from "../../storage/early-outliers.ts";
import { insertOutliers } from "../../storage/events.ts";
import { isMembershipTold } from "../../storage/streams.ts";

/**
 * Stores a membership of one of our users in a room that we are not in. To be called behind the room's lock.
 *
 * @returns false for one that is repeated: its user was told of it
 */
export async function storeUntoldMembership(tx: Connection, event: Event, userId: UserId): Promise<boolean> {
  const { roomId, eventId } = event;
  await untilNoEarlyOutlierIsDeleted(tx, roomId);
  // That the event is stored says nothing: a failed join may have left it.
  const inserted = await insertOutliers(tx, [{ event, rejection: null }]);
  return inserted > 0 || !(await isMembershipTold(tx, { userId, roomId, eventId }));
}
