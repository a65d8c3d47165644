/** The clocks of machines that work together differ by less. */
export const CLOCKS_DIFFER_MS = 60_000;

/**
 * Milliseconds that are left of a wait; 0 if it is over. One of which more is left than it was long was noted while the
 * clock was ahead: it is over, since nobody knows better.
 *
 * @param longestMs what the wait was at most, when it was noted
 */
export function timeLeft(until: number, longestMs: number, now: number): number {
  const left = until - now;
  return left > longestMs + CLOCKS_DIFFER_MS ? 0 : Math.max(0, left);
}
