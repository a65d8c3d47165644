import { setTimeout as delay } from "node:timers/promises";
import { cpuOf } from "./measure-join.ts";
import type { Product } from "./products.ts";

const LOOK_EVERY_MS = 1_000;
const IDLE_BELOW = 0.1;
const MOST_LOOKS = 300;

/**
 * Waits until the products take less than a tenth of one processor together: what one of them has left to do behind a
 * join, as its user directory or its database's vacuum, must not be charged to the other.
 *
 * @returns for how many seconds they were not at rest
 * @throws Error if that does not come about in five minutes
 */
export async function untilIdle(products: readonly Product[]): Promise<number> {
  let before = await cpuSeconds(products);
  for (let looks = 0; looks < MOST_LOOKS; looks += 1) {
    await delay(LOOK_EVERY_MS);
    const now = await cpuSeconds(products);
    if (((now - before) * 1000) / LOOK_EVERY_MS < IDLE_BELOW) return (looks * LOOK_EVERY_MS) / 1000;
    before = now;
  }
  throw new Error(`${products.map(({ name }) => name).join(" and ")} did not come to rest`);
}

async function cpuSeconds(products: readonly Product[]): Promise<number> {
  const all = await Promise.all(products.map((product) => product.processes()));
  return all.map(cpuOf).reduce((sum, { own, postgres, temporal }) => {
    return sum + Object.values(own).reduce((seconds, part) => seconds + part, 0) + postgres + temporal;
  }, 0);
}
