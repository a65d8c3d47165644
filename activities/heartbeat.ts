import { Context } from "@temporalio/activity";

/** Well below the heartbeat time-out of 5 s, by which a killed worker is noticed. */
const INTERVAL_MS = 1_000;

/** Heartbeats while the work goes on; the signal tells it of a cancel. */
export async function withHeartbeat<T>(
  work: (signal: AbortSignal, note: (details: unknown) => void) => Promise<T>,
): Promise<T> {
  const context = Context.current();
  let details: unknown;
  const timer = setInterval(() => context.heartbeat(details), INTERVAL_MS);
  try {
    return await work(context.cancellationSignal, (latest) => {
      details = latest;
    });
  } finally {
    clearInterval(timer);
  }
}
