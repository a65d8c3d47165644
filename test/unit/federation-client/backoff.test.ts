import { describe, expect, it } from "vitest";
import { FIRST_INTERVAL_MS, MAX_INTERVAL_MS, nextBackOff } from "../../../src/federation-client/backoff.ts";
import { FederationFailure } from "../../../src/federation-client/failures.ts";

function aFailure(retryAfterMs?: number): FederationFailure {
  return new FederationFailure({ kind: "timeout", server: "x.example", reason: "no answer in time", retryAfterMs });
}

describe("nextBackOff", () => {
  it("starts at half a minute", () => {
    expect(nextBackOff(undefined, aFailure(), 5000)).toEqual({
      serverName: "x.example",
      failingSince: 5000,
      retryAt: 5000 + FIRST_INTERVAL_MS,
      retryIntervalMs: FIRST_INTERVAL_MS,
      lastError: "no answer in time",
    });
  });

  it("doubles with each failure after the last interval, up to an hour, and remembers since when", () => {
    let known = nextBackOff(undefined, aFailure(), 0);
    const intervals = [known.retryIntervalMs];
    for (let failures = 0; failures < 9; failures++) {
      known = nextBackOff(known, aFailure(), known.retryAt);
      intervals.push(known.retryIntervalMs);
    }
    expect(intervals.slice(0, 3)).toEqual([FIRST_INTERVAL_MS, 2 * FIRST_INTERVAL_MS, 4 * FIRST_INTERVAL_MS]);
    expect(intervals.at(-1)).toBe(MAX_INTERVAL_MS);
    expect(known.failingSince).toBe(0);
  });

  it("takes failures of requests that were under way together as one", () => {
    const first = nextBackOff(undefined, aFailure(), 0);
    expect(nextBackOff(first, aFailure(), 1000)).toEqual(first);
  });

  it("waits as long as the server asks for, within the cap", () => {
    expect(nextBackOff(undefined, aFailure(90_000), 0).retryIntervalMs).toBe(90_000);
    expect(nextBackOff(undefined, aFailure(MAX_INTERVAL_MS * 9), 0).retryIntervalMs).toBe(MAX_INTERVAL_MS);
  });
});
