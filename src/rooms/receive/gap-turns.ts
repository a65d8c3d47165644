import type { RoomId } from "../../matrix/identifiers.ts";
import { depthOf, type Event } from "../../matrix/event.ts";
import type { Database } from "../../storage/database.ts";
import type { RoomsContext } from "../context.ts";

/** A server that never answers holds up those who ask another for no longer than this. */
const MOST_WAIT_MS = 10_000;

interface Turn {
  readonly depth: bigint;
  readonly begin: () => void;
}

/** Who waits for a turn in a room where somebody has it. */
type Queue = Set<Turn>;

const queuesOf = new WeakMap<Database, Map<RoomId, Queue>>();

/**
 * One event of a room after the other has its past looked for, the least deep first: whoever comes later finds there
 * what the one before was given, so that several events of one gap ask for it once. Another process may ask too, which
 * does no harm.
 */
export async function inGapTurn<T>(ctx: RoomsContext, event: Event, work: () => Promise<T>): Promise<T> {
  const queues = queuesOf.get(ctx.database) ?? new Map<RoomId, Queue>();
  queuesOf.set(ctx.database, queues);
  const queue = queues.get(event.roomId);
  const isTurn = queue === undefined || (await turnComes(queue, depthOf(event.pdu)));
  if (queue === undefined) queues.set(event.roomId, new Set());
  try {
    return await work();
  } finally {
    if (isTurn) passOn(queues, event.roomId);
  }
}

/** False for who has waited long enough, and goes ahead beside whoever has the turn. */
async function turnComes(queue: Queue, depth: bigint): Promise<boolean> {
  return await new Promise<boolean>((resolve) => {
    const turn: Turn = {
      depth,
      begin: () => {
        clearTimeout(patience);
        resolve(true);
      },
    };
    const patience = setTimeout(() => {
      queue.delete(turn);
      resolve(false);
    }, MOST_WAIT_MS);
    queue.add(turn);
  });
}

function passOn(queues: Map<RoomId, Queue>, roomId: RoomId): void {
  const queue = queues.get(roomId) ?? new Set<Turn>();
  const [next] = [...queue].toSorted((one, other) => (one.depth < other.depth ? -1 : 1));
  if (next === undefined) {
    queues.delete(roomId);
    return;
  }
  queue.delete(next);
  next.begin();
}
