/** Bytes that come in pieces of any size: a million pieces of one byte must not take a hundred times their sum. */
export interface ByteBuffer {
  readonly length: number;
  /** Copies the piece, so that the chunk it was a part of need not be held. */
  append(piece: Uint8Array): void;
  /** What was appended and then this, to be used before the next change. */
  with(last: Uint8Array): Uint8Array;
  /** Lets go of the bytes. */
  clear(): void;
}

const FIRST_SIZE = 1024;

export function createByteBuffer(): ByteBuffer {
  let bytes = new Uint8Array(0);
  let length = 0;
  const append = (piece: Uint8Array): void => {
    const needed = length + piece.length;
    if (needed > bytes.length) {
      const larger = new Uint8Array(Math.max(needed, bytes.length * 2, FIRST_SIZE));
      larger.set(bytes.subarray(0, length));
      bytes = larger;
    }
    bytes.set(piece, length);
    length = needed;
  };
  return {
    get length() {
      return length;
    },
    append,
    with(last) {
      append(last);
      return bytes.subarray(0, length);
    },
    clear() {
      bytes = new Uint8Array(0);
      length = 0;
    },
  };
}
