import { isSignedBy, PUBLIC_KEY_BYTES, SIGNATURE_BYTES } from "../../matrix/ed25519.ts";
import type { SignatureCheck } from "../../matrix/signatures.ts";

/**
 * Many signature checks in one piece of memory, which is handed from thread to thread without being copied: for each
 * check the length of its text in bytes, the signature (64 bytes), the public key (32 bytes) and the text in UTF-8.
 */
export type SignatureBatch = Uint8Array<ArrayBuffer>;

const LENGTH_BYTES = 4;
const HEAD_BYTES = LENGTH_BYTES + SIGNATURE_BYTES + PUBLIC_KEY_BYTES;

export function packSignatures(checks: readonly SignatureCheck[]): SignatureBatch {
  const size = checks.reduce((sum, { text }) => sum + HEAD_BYTES + Buffer.byteLength(text), 0);
  const bytes = new Uint8Array(size);
  const buffer = Buffer.from(bytes.buffer);
  let at = 0;
  for (const { text, signature, publicKey } of checks) {
    bytes.set(signature, at + LENGTH_BYTES);
    bytes.set(publicKey, at + LENGTH_BYTES + SIGNATURE_BYTES);
    const length = buffer.write(text, at + HEAD_BYTES, "utf8");
    buffer.writeUInt32LE(length, at);
    at += HEAD_BYTES + length;
  }
  return bytes;
}

/** @returns a byte for each check, 1 where the signature holds */
export function checkPacked(batch: SignatureBatch): Uint8Array<ArrayBuffer> {
  const buffer = Buffer.from(batch.buffer);
  const results: number[] = [];
  for (let at = 0; at < buffer.length;) {
    const keyAt = at + LENGTH_BYTES + SIGNATURE_BYTES;
    const textAt = at + HEAD_BYTES;
    const end = textAt + buffer.readUInt32LE(at);
    const signature = buffer.subarray(at + LENGTH_BYTES, keyAt);
    const holds = isSignedBy(buffer.subarray(keyAt, textAt), signature, buffer.subarray(textAt, end));
    results.push(holds ? 1 : 0);
    at = end;
  }
  return Uint8Array.from(results);
}
