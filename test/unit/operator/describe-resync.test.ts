import { describe, expect, it } from "vitest";
import { describeResync, describeSummary } from "../../../src/operator/describe-resync.ts";
import type { ResyncReport } from "../../../src/operator/read-resyncs.ts";
import type { WorkflowStanding } from "../../../src/operator/resync-workflows.ts";

const NOW = Date.UTC(2026, 10, 22, 12, 0, 0);

function aReport(workflow: WorkflowStanding, changes: Partial<ResyncReport> = {}): ResyncReport {
  return {
    state: "partial",
    roomId: "!room:example.org",
    joinEventId: "$join",
    joinedVia: "one.example",
    partialEvents: 2,
    serversInRoom: ["one.example", "two.example"],
    lacks: [],
    drops: [],
    workflow,
    ...changes,
  } as ResyncReport;
}

describe("describeResync", () => {
  it("says of a complete room that there is nothing to do", () => {
    expect(describeResync({ roomId: "!room:example.org", state: "complete" }, NOW)).toBe(
      "!room:example.org\n  state     complete: nothing to resync\n",
    );
  });

  it("shows the phase, the counts, and each server with its own cause and next attempt", () => {
    const text = describeResync(
      aReport({
        state: "running",
        runId: "run",
        progress: {
          phase: "waiting",
          partialEvents: 2,
          idsLeft: 340,
          servers: [
            { name: "one.example", result: "answered", failures: 0 },
            {
              name: "two.example",
              result: "failed",
              cause: "not-seen-join",
              detail: "403 M_FORBIDDEN",
              failures: 3,
              nextAttempt: NOW + 11_500,
            },
            { name: "three.example", result: "failed", cause: "unreachable", failures: 1, nextAttempt: NOW - 1 },
          ],
        },
      }),
      NOW,
    );
    expect(text).toContain("since our join $join via one.example");
    expect(text).toContain("waiting; 2 partial events, 340 state events still to fetch");
    expect(text).toContain("one.example: answered\n");
    expect(text).toContain("two.example: failed 3 times (not-seen-join: 403 M_FORBIDDEN); next attempt in 12 s\n");
    expect(text).toContain("three.example: failed 1 time (unreachable)\n");
  });

  describe("of a room that lacks a state", () => {
    const asked = { name: "one.example", cause: "unknown-event", failures: 2, nextAttempt: NOW + 4_000 } as const;
    const progress = {
      phase: "waiting",
      partialEvents: 2,
      idsLeft: 0,
      servers: [],
      missingStates: [{ eventId: "$lost", ofJoin: false, servers: [asked] }],
    } as const;
    const running = { state: "running", runId: "run", progress } as const;
    const show = (report: object): string => describeResync(aReport(running, report), NOW);

    it("names the state, what builds on it, who was asked for it in vain, and the way out", () => {
      const text = show({ lacks: [{ missing: "$lost", neededBy: "$theirs", isOurJoin: false }] });
      expect(text).toContain("missing   the state at $lost, on which $theirs builds\n");
      expect(text).toContain("one.example: asked in vain 2 times (unknown-event); next attempt in 4 s\n");
      expect(text).toContain("if nobody can give it: fastjoin drop '!room:example.org' '$theirs'\n");
    });

    it("offers no way out for our join", () => {
      const text = show({ lacks: [{ missing: "$lost", neededBy: "$join", isOurJoin: true }] });
      expect(text).toContain("missing   the state at $lost, on which our join builds\n");
      expect(text).not.toContain("fastjoin drop");
    });

    it("shows what was dropped, until its turn has come", () => {
      const text = show({ drops: [{ eventId: "$theirs", by: "root", at: NOW, why: "its server is gone" }] });
      expect(text).toContain("dropped   $theirs, by root at 2026-11-22T12:00:00.000Z: its server is gone\n");
    });
  });

  it("shows who cancelled it, when and why, and where to look on", () => {
    const text = describeResync(
      aReport({ state: "closed", runId: "run", status: "canceled" }, {
        wish: { wish: "cancelled", by: "root", at: NOW, why: "too large" },
        link: "http://localhost:8233/x",
      } as Partial<ResyncReport>),
      NOW,
    );
    expect(text).toContain("wish      cancelled, by root at 2026-11-22T12:00:00.000Z: too large\n");
    expect(text).toContain("the workflow has ended (canceled); only a retry starts it again\n");
    expect(text).toContain("temporal  http://localhost:8233/x\n");
  });

  it.each<[WorkflowStanding, string]>([
    [
      {
        state: "running",
        runId: "run",
        note: "no worker tells its progress: timed out",
        lastKnown: {
          phase: "waiting",
          partialEvents: 1,
          servers: [{ name: "one.example", result: "answered", failures: 0 }],
        },
      },
      "running, but no worker tells its progress: timed out; last known: waiting, 1 partial event",
    ],
    [{ state: "none" }, "no workflow; the reconciler or a retry starts it"],
    [
      { state: "closed", runId: "run", status: "terminated" },
      "the workflow has ended (terminated); the reconciler or a retry starts it again",
    ],
    [{ state: "unknown", note: "Temporal does not answer: refused" }, "Temporal does not answer: refused"],
    [
      {
        state: "running",
        runId: "run",
        lastKnown: {
          phase: "waiting",
          partialEvents: 1,
          servers: [{ name: "one.example", result: "answered", failures: 0 }],
        },
      },
      "one.example: answered",
    ],
  ])("tells what is in the way of progress: %j", (workflow, words) => {
    expect(describeResync(aReport(workflow), NOW)).toContain(words);
  });
});

describe("describeSummary", () => {
  it("is one line a room", () => {
    const summary = { roomId: "!r:x", joinEventId: "$j", joinedVia: null, partialEvents: 1 } as const;
    expect(describeSummary(summary)).toBe("!r:x  1 partial event, joined via unknown\n");
  });
});
