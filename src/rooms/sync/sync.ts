import type { LongObject } from "../../federation-api/long-json.ts";
import type { UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import type { PresenceState } from "../../storage/presence.ts";
import { notePolling } from "../edus/own-presence.ts";
import type { Filter } from "../read/event-filter.ts";
import type { ReadContext } from "../read/full-state-wait.ts";
import { syncAccountData } from "./sync-account-data.ts";
import { acknowledgeToDevice, deviceKeysLeft, syncDevices } from "./sync-devices.ts";
import { syncPresence } from "./sync-presence.ts";
import { syncRooms } from "./sync-rooms.ts";
import type { RoomsToSync } from "./sync-rooms.ts";
import { syncToken } from "../read/sync-token.ts";

export interface SyncRequest {
  readonly requester: { readonly userId: UserId; readonly deviceId: string };
  /** What the client has seen: undefined for the first time. */
  readonly since: bigint | undefined;
  readonly filter: Filter;
  readonly fullState: boolean;
  /** The client wants the state behind the timeline instead of that before it. */
  readonly stateAfter: boolean;
  /** As what the user is shown to others while they ask. */
  readonly setPresence: PresenceState;
  /** How long to wait for news, in milliseconds; nothing waits in a first sync. */
  readonly timeoutMs: number;
  /** Ends the wait. */
  readonly signal: AbortSignal;
}

/** While waiting, what nobody is woken for is found at the latest after so long. */
const MAX_WAIT_MS = 600_000;

/**
 * What has become of a user's rooms since they last asked, as soon as there is anything.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
 */
export async function sync(ctx: ReadContext, request: SyncRequest): Promise<LongObject> {
  const patienceMs = Math.min(request.timeoutMs, MAX_WAIT_MS);
  await notePolling(ctx, { userId: request.requester.userId, as: request.setPresence, forMs: patienceMs });
  await acknowledgeToDevice(ctx, request);
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const position = await ctx.stream.current();
    const news = await newsUpTo(ctx, request, position);
    const timeLeft = deadline - performance.now();
    const answersAtOnce = request.since === undefined || request.fullState || !isEmpty(news);
    if (answersAtOnce || timeLeft <= 0) {
      return responseOf(news, await deviceKeysLeft(ctx, request));
    }
    if (!(await ctx.stream.past(position, { timeoutMs: timeLeft, signal: request.signal }))) {
      return responseOf(news, await deviceKeysLeft(ctx, request));
    }
  }
}

interface News {
  /** Where the answer ends. */
  readonly position: bigint;
  readonly rooms: RoomsToSync;
  /** Members of the answer beside the rooms; absent where there is nothing to tell. */
  readonly beside: JsonObject;
}

async function newsUpTo(ctx: ReadContext, request: SyncRequest, upTo: bigint): Promise<News> {
  const { position, groups } = await syncDevices(ctx, request, upTo);
  return {
    position,
    rooms: await syncRooms(ctx, request, position),
    beside: {
      ...groups,
      ...(await syncAccountData(ctx, request, position)),
      ...(await syncPresence(ctx, request, position)),
    },
  };
}

function isEmpty({ rooms, beside }: News): boolean {
  const noRooms = Object.values(rooms).every((group) => Object.keys(group).length === 0);
  return noRooms && Object.keys(beside).length === 0;
}

/** A client counts a missing group as an empty one. */
function responseOf({ position, rooms, beside }: News, always: JsonObject): LongObject {
  const groups = Object.entries(rooms).filter(([, group]) => Object.keys(group).length > 0);
  return {
    next_batch: syncToken(position),
    ...(groups.length === 0 ? {} : { rooms: Object.fromEntries(groups) }),
    ...beside,
    ...always,
  };
}
