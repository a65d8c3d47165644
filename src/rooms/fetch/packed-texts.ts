import { deflateRawSync, inflateRawSync } from "node:zlib";

/** Texts that are packed together: enough to share what they have in common, few enough to be unpacked for one of them. */
const BLOCK_BYTES = 16 * 1024;

/** What a block takes beside its bytes, about. */
const BLOCK = 400;

/** A text in a block of others. */
export interface PackedText {
  readonly block: Block;
  readonly start: number;
  readonly end: number;
}

interface Block {
  /** Of memory of its own: of Node.js's pool a whole slab would stay for as long as one text in it waits. */
  bytes: Buffer;
  isCompressed: boolean;
  /** How many of its texts were not taken out yet. */
  left: number;
  /** What it counts for. */
  weight: number;
}

/** Texts that are held until they are taken out, one by one. */
export interface PackedTexts {
  add(text: string): PackedText;
  /** To be called once for each. */
  take(text: PackedText): string;
  /** Lets it go unread. */
  drop(text: PackedText): void;
}

/**
 * @param isTight whether there is so little room that texts are worth being compressed, which takes some 10 µs each
 * @param weigh told how much more memory is taken, or less
 */
export function createPackedTexts(isTight: () => boolean, weigh: (bytes: number) => void): PackedTexts {
  let open: Block | undefined;
  let used = 0;
  /** The block that was unpacked last: whose texts came together often go together. */
  let unpacked: { readonly block: Block; readonly bytes: Buffer } | undefined;

  function reweigh(block: Block, weight: number): void {
    weigh(weight - block.weight);
    block.weight = weight;
  }

  function close(): void {
    if (open === undefined) return;
    const bytes = open.bytes.subarray(0, used);
    // A large text has little in common with others, and is rare where nobody is hostile.
    open.isCompressed = isTight() && used <= BLOCK_BYTES;
    open.bytes = copyOf(open.isCompressed ? deflateRawSync(bytes, { level: 1 }) : bytes);
    reweigh(open, open.left === 0 ? 0 : BLOCK + open.bytes.length);
    open = undefined;
  }

  function blockFor(length: number): Block {
    if (open !== undefined && used + length <= open.bytes.length) return open;
    close();
    used = 0;
    open = { bytes: Buffer.allocUnsafeSlow(Math.max(BLOCK_BYTES, length)), isCompressed: false, left: 0, weight: 0 };
    reweigh(open, BLOCK + open.bytes.length);
    return open;
  }

  function bytesOf(block: Block): Buffer {
    if (!block.isCompressed) return block.bytes;
    if (unpacked?.block !== block) unpacked = { block, bytes: inflateRawSync(block.bytes) };
    return unpacked.bytes;
  }

  function drop({ block }: PackedText): void {
    block.left -= 1;
    if (block.left > 0) return;
    if (unpacked?.block === block) unpacked = undefined;
    // What is added to an open one finds room behind those that are gone.
    if (block !== open) reweigh(block, 0);
  }

  return {
    add(text) {
      const length = Buffer.byteLength(text);
      const block = blockFor(length);
      const start = used;
      used += block.bytes.write(text, start);
      block.left += 1;
      return { block, start, end: used };
    },
    take(text) {
      const bytes = bytesOf(text.block).toString("utf8", text.start, text.end);
      drop(text);
      return bytes;
    },
    drop,
  };
}

function copyOf(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}
