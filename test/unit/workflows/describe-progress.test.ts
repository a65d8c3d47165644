import { describe, expect, it } from "vitest";
import { describeProgress } from "../../../workflows/describe-progress.ts";

const progress = { phase: "waiting", partialEvents: 2, idsLeft: 0, servers: [] } as const;

describe("describeProgress", () => {
  it("names each missing state, and who was asked for it in vain", () => {
    const asked = { name: "one.example", cause: "unknown-event", failures: 3, nextAttempt: 1_000 } as const;
    const text = describeProgress("!room:example.org", {
      ...progress,
      missingStates: [
        { eventId: "$first", ofJoin: true, servers: [] },
        { eventId: "$lost", ofJoin: false, servers: [asked] },
      ],
    });
    expect(text).toContain("- missing: the state at `$first`, on which our join builds\n");
    expect(text).toContain("- missing: the state at `$lost`; asked in vain: one.example 3× (unknown-event)");
  });

  it("shows each server with its standing and its next attempt", () => {
    const failed = { name: "one.example", result: "failed", cause: "forbidden", detail: "a|b", failures: 2 } as const;
    const text = describeProgress("!room:example.org", {
      ...progress,
      servers: [
        { ...failed, nextAttempt: 0 },
        { name: "two.example", result: "answered", failures: 0 },
      ],
    });
    expect(text).toContain("**!room:example.org**: waiting until a server can be asked again");
    expect(text).toContain("| one.example | failed 2× (forbidden: a\\|b) | 1970-01-01T00:00:00.000Z |");
    expect(text).toContain("| two.example | answered |  |");
  });

  it("can tell of an attempt that no date can name", () => {
    const failed = { name: "one.example", result: "failed", cause: "server-error", failures: 1 } as const;
    const servers = [{ ...failed, nextAttempt: Number.MAX_SAFE_INTEGER }];
    expect(describeProgress("!room:example.org", { ...progress, servers })).toContain("| one.example | failed 1×");
  });
});
