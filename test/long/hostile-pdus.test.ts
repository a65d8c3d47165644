import fc from "fast-check";
import { describe, it } from "vitest";
import { laxJson } from "../property/arbitrary-json.ts";
import { anyRules, changedByte, mutant, useUp } from "../property/arbitrary-pdus.ts";

/** Until the time is up; a failure prints the seed that repeats it. */
const A_MINUTE = { numRuns: Number.MAX_SAFE_INTEGER, interruptAfterTimeLimit: 60_000, markInterruptAsFailure: false };

describe("parsePdu", () => {
  it("gives nothing but verdicts on a minute of mutated events", () => {
    fc.assert(
      fc.property(mutant, ({ rules, value }) => useUp(value, rules)),
      A_MINUTE,
    );
  });

  it("gives nothing but verdicts on a minute of mutated bytes", () => {
    fc.assert(
      fc.property(changedByte, (mutated) => {
        if (mutated !== undefined) useUp(mutated.value, mutated.rules);
      }),
      A_MINUTE,
    );
  });

  it("gives nothing but verdicts on a minute of arbitrary JSON", () => {
    fc.assert(fc.property(laxJson, anyRules, useUp), A_MINUTE);
  });
});
