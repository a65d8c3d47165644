import { setImmediate as nextTurn } from "node:timers/promises";

/** Entries of a state that work looks at between two pauses, in some milliseconds. */
export const ENTRIES_BETWEEN_PAUSES = 5_000;

/** Does work that pauses of itself; in each pause whoever else the process serves gets its turn. */
export async function withPauses<T>(work: Generator<void, T>): Promise<T> {
  for (;;) {
    const step = work.next();
    if (step.done === true) return step.value;
    await nextTurn();
  }
}
