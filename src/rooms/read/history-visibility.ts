import type { EventId, UserId } from "../../matrix/identifiers.ts";
import { stateKeyOf } from "../../matrix/state.ts";
import { loadEvents } from "../../storage/events.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { lookUpManyInSnapshot } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";

/** Who reads, and up to where. */
export interface Viewer {
  readonly userId: UserId;
  /** The position of the event by which they left; undefined for a joined user. */
  readonly leftAt: bigint | undefined;
  /** The latest state of the room that they may see. */
  readonly snapshotId: bigint;
}

/** What decides whether an event may be seen: the room's rule and the viewer's membership in the state before it. */
interface View {
  readonly visibility: string;
  readonly membership: string;
}

const VISIBILITY_KEY = stateKeyOf("m.room.history_visibility", "");
/** Where no rule is set, or an unknown one. */
const DEFAULT_VISIBILITY = "shared";

/**
 * Those of the events (of one room) that the room's history visibility lets the viewer see. The memberships of our own
 * users are known while the state is partial, so nothing has to be waited for.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-5
 */
export async function visibleEvents(
  ctx: RoomsContext,
  viewer: Viewer,
  events: readonly StoredEvent[],
): Promise<readonly StoredEvent[]> {
  const views = await viewsOf(ctx, viewer, events);
  return events.filter((event) => isVisible(event, viewer, views));
}

function isVisible(event: StoredEvent, viewer: Viewer, views: ReadonlyMap<bigint, View>): boolean {
  const before = viewBefore(event, viewer, views);
  // One's own membership is seen by whichever side of it allows more, and so is a change of the rule.
  const decidesItself =
    event.pdu.type === "m.room.history_visibility" ||
    (event.pdu.type === "m.room.member" && event.pdu.state_key === viewer.userId);
  const after = decidesItself && event.stateAfter !== null ? views.get(event.stateAfter) : undefined;
  const leftBefore = viewer.leftAt !== undefined && event.streamId !== null && event.streamId > viewer.leftAt;
  return [before, ...(after === undefined ? [] : [after])].some((view) => allows(view, leftBefore));
}

/** Of an event whose state we don't have, today's rule decides, and that nobody of ours was there. */
function viewBefore({ stateBefore }: StoredEvent, viewer: Viewer, views: ReadonlyMap<bigint, View>): View {
  const before = stateBefore === null ? undefined : views.get(stateBefore);
  return (
    before ?? {
      visibility: views.get(viewer.snapshotId)?.visibility ?? DEFAULT_VISIBILITY,
      membership: "leave",
    }
  );
}

function allows({ visibility, membership }: View, leftBefore: boolean): boolean {
  if (visibility === "world_readable" || membership === "join") {
    return true;
  }
  switch (visibility) {
    case "invited":
      return membership === "invite";
    case "joined":
      return false;
    default:
      // shared: whoever is joined at any point after the event.
      return !leftBefore;
  }
}

async function viewsOf(
  ctx: RoomsContext,
  { userId, snapshotId: latest }: Viewer,
  events: readonly StoredEvent[],
): Promise<ReadonlyMap<bigint, View>> {
  const snapshotIds = new Set(events.flatMap(({ stateBefore, stateAfter }) => [stateBefore ?? latest, stateAfter]));
  const memberKey = stateKeyOf("m.room.member", userId);
  const found = new Map<bigint, { readonly visibility: EventId | undefined; readonly member: EventId | undefined }>();
  for (const snapshotId of snapshotIds) {
    if (snapshotId === null) {
      continue;
    }
    const ids = await lookUpManyInSnapshot(ctx.database.pool, snapshotId, [
      ["m.room.history_visibility", ""],
      ["m.room.member", userId],
    ]);
    found.set(snapshotId, { visibility: ids.get(VISIBILITY_KEY), member: ids.get(memberKey) });
  }
  const wanted = [...found.values()].flatMap(({ visibility, member }) => [visibility, member]);
  const loaded = await loadEvents(ctx.database.pool, [...new Set(wanted.filter((id) => id !== undefined))]);
  const contentOf = (id: EventId | undefined, key: string): string | undefined => {
    const value = id === undefined ? undefined : loaded.get(id)?.pdu.content[key];
    return typeof value === "string" ? value : undefined;
  };
  return new Map(
    [...found].map(([snapshotId, { visibility, member }]) => [
      snapshotId,
      {
        visibility: contentOf(visibility, "history_visibility") ?? DEFAULT_VISIBILITY,
        membership: contentOf(member, "membership") ?? "leave",
      },
    ]),
  );
}
