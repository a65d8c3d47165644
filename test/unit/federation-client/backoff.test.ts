import { describe, expect, it } from "vitest";
import {
  backOffLeft,
  FIRST_INTERVAL_MS,
  MAX_INTERVAL_MS,
  nextBackOff,
} from "../../../src/federation-client/backoff.ts";
import type { RequestPurpose } from "../../../src/federation-client/backoff.ts";
import { FederationFailure } from "../../../src/federation-client/failures.ts";

function aFailure(retryAfterMs?: number): FederationFailure {
  return new FederationFailure({ kind: "timeout", server: "x.example", reason: "no answer in time", retryAfterMs });
}

function at(now: number, purpose: RequestPurpose = "other") {
  return { now, purpose };
}

describe("nextBackOff", () => {
  it("starts at half a minute", () => {
    expect(nextBackOff(undefined, aFailure(), at(5000))).toEqual({
      serverName: "x.example",
      failingSince: 5000,
      retryAt: 5000 + FIRST_INTERVAL_MS,
      retryIntervalMs: FIRST_INTERVAL_MS,
      lastError: "no answer in time",
      sendsOnly: false,
    });
  });

  it("doubles with each failure after the last interval, up to an hour, and remembers since when", () => {
    let known = nextBackOff(undefined, aFailure(), at(0));
    const intervals = [known.retryIntervalMs];
    for (let failures = 0; failures < 9; failures++) {
      known = nextBackOff(known, aFailure(), at(known.retryAt));
      intervals.push(known.retryIntervalMs);
    }
    expect(intervals.slice(0, 3)).toEqual([FIRST_INTERVAL_MS, 2 * FIRST_INTERVAL_MS, 4 * FIRST_INTERVAL_MS]);
    expect(intervals.at(-1)).toBe(MAX_INTERVAL_MS);
    expect(known.failingSince).toBe(0);
  });

  it("takes failures of requests that were under way together as one", () => {
    const first = nextBackOff(undefined, aFailure(), at(0));
    expect(nextBackOff(first, aFailure(), at(1000))).toEqual(first);
  });

  it("holds for over what was noted while the clock was ahead", () => {
    const HOUR_MS = 60 * 60_000;
    const ahead = nextBackOff(undefined, aFailure(), at(HOUR_MS));
    expect([backOffLeft(ahead, HOUR_MS), backOffLeft(ahead, 0)]).toEqual([FIRST_INTERVAL_MS, 0]);
    // Another machine's clock may be some seconds behind.
    expect(backOffLeft(ahead, HOUR_MS - 5_000)).toBe(FIRST_INTERVAL_MS + 5_000);
    expect(nextBackOff(ahead, aFailure(), at(0))).toMatchObject({ retryAt: 2 * FIRST_INTERVAL_MS });
  });

  it("waits as long as the server asks for, within the cap", () => {
    expect(nextBackOff(undefined, aFailure(90_000), at(0)).retryIntervalMs).toBe(90_000);
    expect(nextBackOff(undefined, aFailure(MAX_INTERVAL_MS * 9), at(0)).retryIntervalMs).toBe(MAX_INTERVAL_MS);
  });

  it("tells what transactions alone have earned, until something else fails", () => {
    const first = nextBackOff(undefined, aFailure(), at(0, "transaction"));
    const second = nextBackOff(first, aFailure(), at(first.retryAt, "transaction"));
    expect([first.sendsOnly, second.sendsOnly]).toEqual([true, true]);
    const widened = nextBackOff(second, aFailure(), at(second.retryAt - 1, "keys"));
    expect(widened).toEqual({ ...second, sendsOnly: false });
    expect(nextBackOff(widened, aFailure(), at(second.retryAt, "transaction")).sendsOnly).toBe(false);
  });

  it("does not make keys wait at once for as long as many transactions in vain have earned", () => {
    const earned = nextBackOff(undefined, aFailure(MAX_INTERVAL_MS), at(0, "transaction"));
    expect(nextBackOff(earned, aFailure(), at(1000, "keys"))).toMatchObject({
      retryAt: 1000 + FIRST_INTERVAL_MS,
      retryIntervalMs: MAX_INTERVAL_MS,
    });
  });
});
