import { randomInt } from "node:crypto";
import { freePort } from "../../src/main/embedded/free-port.ts";

/** Systems give ports above these to whoever asks for any, our own PostgreSQL and Temporal among them: Linux from 32768. */
const FIRST = 10_000;
const COUNT = 22_000;
const TRIES = 100;

const given = new Set<number>();

/**
 * A TCP port of loopback for something that is started later: until then nobody else takes it. The two workers of a test
 * run choose from even and odd ones.
 *
 * @throws Error where there is none
 */
export async function reservedPort(): Promise<number> {
  const parity = Number(process.env["VITEST_POOL_ID"] ?? 0) % 2;
  for (let tries = 0; tries < TRIES; tries += 1) {
    const port = FIRST + 2 * randomInt(COUNT / 2) + parity;
    if (given.has(port)) continue;
    given.add(port);
    if ((await freePort(port)) === port) return port;
  }
  throw new Error(`none of ${TRIES} ports is free`);
}
