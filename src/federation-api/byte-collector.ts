/**
 * Gathers the bytes of a text that comes in pieces. Kept as they come, pieces of one byte each would take a hundred times
 * their size, and who sends decides how large they are.
 */
export interface ByteCollector {
  readonly length: number;
  add(piece: Uint8Array): void;
  /** All bytes so far; they are overwritten by what is added after {@link clear}. */
  bytes(): Uint8Array;
  clear(): void;
}

const FIRST_CAPACITY = 1024;
/** What is cleared is kept for the next text up to here: an event as large as any may be. */
const KEPT_CAPACITY = 256 * 1024;

export function createByteCollector(): ByteCollector {
  let store = new Uint8Array(0);
  let length = 0;
  return {
    get length() {
      return length;
    },
    add(piece) {
      const needed = length + piece.length;
      if (needed > store.length) {
        const grown = new Uint8Array(Math.max(needed, store.length * 2, FIRST_CAPACITY));
        grown.set(store.subarray(0, length));
        store = grown;
      }
      store.set(piece, length);
      length = needed;
    },
    bytes: () => store.subarray(0, length),
    clear() {
      if (store.length > KEPT_CAPACITY) store = new Uint8Array(0);
      length = 0;
    },
  };
}
