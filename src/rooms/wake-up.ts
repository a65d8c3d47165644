/** A bell for a loop that sleeps between its rounds: rung while the loop is at work, it cuts the next sleep short. */
export interface WakeUp {
  ring(): void;
  /** Resolved when the bell rings, or after `ms`. */
  sleep(ms: number): Promise<void>;
}

export function createWakeUp(): WakeUp {
  let rung = false;
  let wake: (() => void) | undefined;
  return {
    ring() {
      rung = true;
      wake?.();
    },
    async sleep(ms) {
      if (!rung) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, ms);
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
      rung = false;
      wake = undefined;
    },
  };
}
