/** Bounds the bytes of all request bodies that are in hand at once, whoever sends them. */
export interface BodyBudget {
  /** @param cutOff ends the reading of the body: called at most once, when others need the room */
  open(cutOff: () => void): BodyShare;
}

/** What one request takes of the budget, from its first byte until it is answered. */
export interface BodyShare {
  /** @returns whether there is room for so many bytes more */
  take(bytes: number): boolean;
  /** The body has been read, so that its reading can't be ended any more. */
  read(): void;
  close(): void;
}

interface Holder {
  bytes: number;
  readonly cutOff: () => void;
}

/**
 * Where the room is used up, what has been arriving for the longest makes way: an honest body takes a moment, one that is
 * sent to keep the room does not end.
 */
export function createBodyBudget(maxBytes: number): BodyBudget {
  let taken = 0;
  /** In the order of their beginning. */
  const arriving = new Set<Holder>();

  function release(holder: Holder): void {
    arriving.delete(holder);
    taken -= holder.bytes;
    holder.bytes = 0;
  }

  function makeRoom(bytes: number, own: Holder): boolean {
    for (const other of arriving) {
      if (taken + bytes <= maxBytes) break;
      if (other === own) continue;
      release(other);
      other.cutOff();
    }
    return taken + bytes <= maxBytes;
  }

  return {
    open(cutOff) {
      let gone = false;
      const makeWay = (): void => {
        gone = true;
        cutOff();
      };
      const holder: Holder = { bytes: 0, cutOff: makeWay };
      arriving.add(holder);
      return {
        take(bytes) {
          // One that had to make way reads on until its connection is closed, and takes nothing.
          if (gone || !makeRoom(bytes, holder)) return false;
          taken += bytes;
          holder.bytes += bytes;
          return true;
        },
        read: () => void arriving.delete(holder),
        close: () => release(holder),
      };
    },
  };
}
