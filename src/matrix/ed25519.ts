import sodium from "sodium-native";

export const SIGNATURE_BYTES = sodium.crypto_sign_BYTES;
export const PUBLIC_KEY_BYTES = sodium.crypto_sign_PUBLICKEYBYTES;

/** `secretKey` is libsodium's 64 bytes, seed and public key. */
interface KeyPair {
  readonly publicKey: Buffer;
  readonly secretKey: Buffer;
}

/** @param seed 32 bytes */
export function keyPairFromSeed(seed: Uint8Array): KeyPair {
  const publicKey = Buffer.alloc(PUBLIC_KEY_BYTES);
  const secretKey = Buffer.alloc(sodium.crypto_sign_SECRETKEYBYTES);
  sodium.crypto_sign_seed_keypair(publicKey, secretKey, asBuffer(seed));
  return { publicKey, secretKey };
}

/** @returns the 64 bytes of the signature */
export function signBytes(message: Buffer, secretKey: Uint8Array): Buffer {
  const signature = Buffer.alloc(SIGNATURE_BYTES);
  sodium.crypto_sign_detached(signature, message, asBuffer(secretKey));
  return signature;
}

/** False also where the signature or the key has not the length of one. */
export function isSignedBy(publicKey: Uint8Array, signature: Uint8Array, message: Buffer): boolean {
  if (signature.length !== SIGNATURE_BYTES || publicKey.length !== PUBLIC_KEY_BYTES) return false;
  return sodium.crypto_sign_verify_detached(asBuffer(signature), message, asBuffer(publicKey));
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
