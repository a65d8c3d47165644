/**
 * Lists in PostgreSQL's binary format of arrays, whose layout `array_recv` of its sources has. In the text format each
 * element is quoted and escaped here, and read byte by byte there, which took as long as writing the rows.
 *
 * @see https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-FORMAT-CODES
 */

const TEXT_OID = 25;
const INT8_OID = 20;

const LENGTH_BYTES = 4;
const NULL_LENGTH = -1;

/**
 * A list of texts as a parameter of type `text[]`, of integers as one of `bigint[]`; undefined for any other, and where
 * nothing tells its type.
 */
export function binaryArray(values: readonly unknown[]): Buffer | undefined {
  if (values.every((value) => value === null)) return undefined;
  if (values.every(isTextOrNull)) return textArray(values);
  return values.every((value) => typeof value === "bigint") ? bigintArray(values) : undefined;
}

function isTextOrNull(value: unknown): value is string | null {
  return value === null || typeof value === "string";
}

function textArray(values: readonly (string | null)[]): Buffer {
  let size = values.length * LENGTH_BYTES;
  const lengths = values.map((value) => (value === null ? NULL_LENGTH : Buffer.byteLength(value)));
  for (const length of lengths) if (length > 0) size += length;
  const { bytes, start } = emptyArray(TEXT_OID, values.length, size);
  let at = start;
  for (const [index, value] of values.entries()) {
    at = bytes.writeInt32BE(lengths[index] ?? NULL_LENGTH, at);
    if (value !== null) at += bytes.write(value, at);
  }
  return bytes;
}

function bigintArray(values: readonly bigint[]): Buffer {
  const { bytes, start } = emptyArray(INT8_OID, values.length, values.length * (LENGTH_BYTES + 8));
  let at = start;
  for (const value of values) {
    at = bytes.writeInt32BE(8, at);
    at = bytes.writeBigInt64BE(value, at);
  }
  return bytes;
}

/** Room for elements of so many bytes, behind one dimension, "there may be nulls", the type, the length and its base. */
function emptyArray(
  elementType: number,
  length: number,
  size: number,
): { readonly bytes: Buffer; readonly start: number } {
  const head = [1, 1, elementType, length, 1];
  const bytes = Buffer.allocUnsafe(head.length * 4 + size);
  let start = 0;
  for (const field of head) start = bytes.writeInt32BE(field, start);
  return { bytes, start };
}
