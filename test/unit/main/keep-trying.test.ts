import { pino } from "pino";
import { describe, expect, it } from "vitest";
import { keepTrying } from "../../../src/main/keep-trying.ts";

function aShutdown() {
  let stopping = false;
  let settle: () => void = () => undefined;
  const stopped = new Promise<void>((resolve) => {
    settle = resolve;
  });
  const begin = (): void => {
    stopping = true;
    settle();
  };
  return { begin, shutdown: { stopped, isStopping: () => stopping } };
}

const logger = pino({ level: "silent" });

describe("keepTrying", () => {
  it("does the work again until it is done", async () => {
    let attempts = 0;
    const work = async (): Promise<number> => {
      attempts += 1;
      if (attempts < 3) throw new Error("not yet");
      return attempts;
    };
    const { shutdown } = aShutdown();
    expect(await keepTrying(work, { logger, shutdown, failure: "not done", againMs: 1 })).toBe(3);
  });

  it("gives up when the process stops", async () => {
    const { begin, shutdown } = aShutdown();
    const work = async (): Promise<never> => {
      setImmediate(begin);
      throw new Error("never");
    };
    expect(await keepTrying(work, { logger, shutdown, failure: "not done", againMs: 60_000 })).toBeUndefined();
  });
});
