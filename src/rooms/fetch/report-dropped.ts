import type { RoomId, ServerName } from "../../matrix/identifiers.ts";
import type { RoomsContext } from "../context.ts";
import type { DroppedPdu } from "../events/verify-pdus.ts";
import type { OutlierIntakeResult } from "./outlier-intake.ts";

interface Answer {
  readonly roomId: RoomId;
  readonly server: ServerName;
  readonly endpoint: "/state" | "/event";
}

/** One line names so many: an answer has room for millions. */
const NAMED = 20;

/** Tells the operator which events of an answer failed the checks, and why. */
export function reportDropped(ctx: RoomsContext, answer: Answer, dropped: readonly DroppedPdu[]): void {
  if (dropped.length === 0) return;
  ctx.logger.warn(
    { ...answer, count: dropped.length, dropped: dropped.slice(0, NAMED) },
    "fetched events were dropped",
  );
}

/** Whether it shows that the server does not keep to the protocol. */
export function isProvedFalse({ kind }: DroppedPdu): boolean {
  return kind !== "no-key" && kind !== "hole";
}

/** Events that came and can't be judged, since what they build on did not. */
export function holesIn({ undecided, missingAuthEvents }: OutlierIntakeResult): readonly DroppedPdu[] {
  if (undecided.length === 0) return [];
  const reason = `its auth chain has a hole: nobody gave ${[...missingAuthEvents].slice(0, 3).join(", ")}`;
  return undecided.map((eventId) => ({ kind: "hole", eventId, reason }));
}
