import { setImmediate as nextTurn } from "node:timers/promises";

/** Does work that pauses of itself; in each pause whoever else the process serves gets its turn. */
export async function withPauses<T>(work: Generator<void, T>): Promise<T> {
  for (;;) {
    const step = work.next();
    if (step.done === true) return step.value;
    await nextTurn();
  }
}
