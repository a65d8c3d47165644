/** The seed can be set to try other inputs, and the number of them raised by a factor to try more. */
const SEED = Number(process.env["FUZZ_SEED"] ?? 20_261_122);
const FACTOR = Number(process.env["FUZZ_FACTOR"] ?? 1);

/** How many inputs a property is tried with; a failure prints the seed and the path that repeat it. */
export function runs(count: number): { readonly seed: number; readonly numRuns: number } {
  return { seed: SEED, numRuns: Math.ceil(count * FACTOR) };
}
