import type { RoomId, ServerName } from "../../matrix/identifiers.ts";
import type { RoomsContext } from "../context.ts";
import type { DroppedPdu } from "../events/verify-pdus.ts";

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

/** Without a key nothing is proved against an event; all else shows that the server does not keep to the protocol. */
export function isProvedFalse({ kind }: DroppedPdu): boolean {
  return kind !== "no-key";
}
