import { randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";

const derive = promisify<string, Buffer, number, { N: number; r: number; p: number; maxmem: number }, Buffer>(scrypt);

// 2^15 × 8 × 128 bytes = 32 MB and about 0.1 s a password.
const COST = { N: 2 ** 15, r: 8, p: 1 };
const SALT_BYTES = 16;
const HASH_BYTES = 32;
const STORED = /^\$scrypt\$N=(\d+),r=(\d+),p=(\d+)\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)$/;

/** `$scrypt$N=…,r=…,p=…$salt$hash`: it names its own cost, so that the cost can be raised later. */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(SALT_BYTES);
  const hash = await scryptHash(password, salt, HASH_BYTES, COST);
  return `$scrypt$N=${COST.N},r=${COST.r},p=${COST.p}$${salt.toString("base64")}$${hash.toString("base64")}`;
}

/** @throws Error if `stored` is not what {@link hashPassword} gives */
export async function passwordMatches(password: string, stored: string): Promise<boolean> {
  const [, n, r, p, salt, hash] = STORED.exec(stored) ?? [];
  if (salt === undefined || hash === undefined) throw new Error("a stored password hash is malformed");
  const expected = Buffer.from(hash, "base64");
  const cost = { N: Number(n), r: Number(r), p: Number(p) };
  const actual = await scryptHash(password, Buffer.from(salt, "base64"), expected.length, cost);
  return timingSafeEqual(actual, expected);
}

function scryptHash(password: string, salt: Buffer, length: number, cost: typeof COST): Promise<Buffer> {
  return derive(password.normalize("NFC"), salt, length, { ...cost, maxmem: 256 * cost.N * cost.r });
}
