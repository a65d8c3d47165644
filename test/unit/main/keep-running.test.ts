import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FatalStart, keepRunning, type Run, type SupervisedPart } from "../../../src/main/keep-running.ts";

interface Script {
  readonly part: SupervisedPart;
  /** How often it was started, and stopped. */
  readonly count: { starts: number; stops: number };
}

/** How a start goes: it fails, or runs for some milliseconds and dies, or runs on. */
type Outcome = Error | number | "runs on";

describe("keepRunning", () => {
  const logger = pino({ level: "silent" });
  let abort: AbortController;
  let processes: (number | undefined)[];
  let waits: number[];
  let time = 0;

  /** A part whose starts go as told; after the list, it runs on. */
  function aPart(outcomes: readonly Outcome[] = [], attempts?: number): Script {
    const count = { starts: 0, stops: 0 };
    const start = async (): Promise<Run> => {
      const outcome = outcomes[count.starts] ?? "runs on";
      count.starts += 1;
      if (outcome instanceof Error) {
        throw outcome;
      }
      time += outcome === "runs on" ? 0 : outcome;
      const stop = async (): Promise<void> => void (count.stops += 1);
      const ended = outcome === "runs on" ? new Promise<string>(() => undefined) : Promise.resolve("signal SIGKILL");
      return { pid: count.starts, ended, stop };
    };
    return { part: { name: "part", start, ...(attempts !== undefined && { attempts }) }, count };
  }

  const options = () => ({
    logger,
    signal: abort.signal,
    onProcess: (_name: string, pid: number | undefined) => void processes.push(pid),
    clock: { now: () => time, sleep: async (ms: number) => void waits.push(ms) },
  });

  /** Lets the loop run until it waits for something that does not come. */
  const settle = () => new Promise((resolve) => setImmediate(resolve));

  beforeEach(() => {
    abort = new AbortController();
    [processes, waits, time] = [[], [], 0];
  });
  afterEach(() => {
    abort.abort();
  });

  it("tells of the first run and of its process", async () => {
    const { part } = aPart();
    await keepRunning(part, options()).started;
    expect(processes).toEqual([1]);
  });

  it("starts a part that died again, with waits that double up to half a minute", async () => {
    const { part, count } = aPart(Array.from({ length: 9 }, () => 1000));
    keepRunning(part, options());
    await settle();
    expect(waits).toEqual([200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000]);
    expect(count.starts).toBe(10);
    expect(processes.slice(0, 5)).toEqual([1, undefined, 2, undefined, 3]);
  });

  it("forgets the back-off after a minute's good run", async () => {
    const { part } = aPart([1000, 1000, 61_000, 1000]);
    keepRunning(part, options());
    await settle();
    expect(waits).toEqual([200, 400, 200, 400]);
  });

  it("tries a start that failed again", async () => {
    const { part, count } = aPart([new Error("not yet"), new Error("not yet")]);
    await keepRunning(part, options()).started;
    expect(count.starts).toBe(3);
    expect(waits).toEqual([200, 400]);
  });

  it("gives up after the given attempts without one good start", async () => {
    const { part, count } = aPart([new Error("one"), new Error("two"), new Error("three")], 2);
    const { started, done } = keepRunning(part, options());
    await expect(started).rejects.toThrow("two");
    await expect(done).rejects.toThrow("two");
    expect(count.starts).toBe(2);
  });

  it("goes on for ever once it has run", async () => {
    const { part, count } = aPart([1, new Error("one"), new Error("two"), new Error("three")], 2);
    keepRunning(part, options());
    await settle();
    expect(count.starts).toBe(5);
  });

  it("does not try again what no attempt can mend", async () => {
    const { part, count } = aPart([1, new FatalStart("wrong setting")]);
    await expect(keepRunning(part, options()).done).rejects.toThrow("wrong setting");
    expect(count.starts).toBe(2);
  });

  it("stops the run, and starts none, once the signal aborts", async () => {
    const { part, count } = aPart();
    const { started, done } = keepRunning(part, options());
    await started;
    abort.abort();
    await done;
    expect(count).toEqual({ starts: 1, stops: 1 });
    expect(processes).toEqual([1, undefined]);
  });
});
