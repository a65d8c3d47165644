import type { RoomPurged } from "../rooms/join/purge-room.ts";
import type { MisdirectedReport } from "./read-misdirected.ts";

/** What `fastjoin show` adds where events of ours went to servers that were not in the room; empty where none did. */
export function describeMisdirected({ servers }: MisdirectedReport): string {
  if (servers.length === 0) return "";
  const lines = servers.map(({ server, count, eventIds }) => {
    const last = eventIds.at(-1);
    return `            ${server}: ${count} event${count === 1 ? "" : "s"}, the last ${last}\n`;
  });
  return `  sent to servers that were not in the room:\n${lines.join("")}`;
}

/** `fastjoin purge` */
export function describePurge(roomId: string, { left, notLeft, owed }: RoomPurged): string {
  const who = left.length === 0 ? "none of our users was in it" : `left by ${left.join(", ")}`;
  const told = owed === 0 ? "" : `; ${owed} event${owed === 1 ? " has" : "s have"} still to be delivered`;
  const failed = notLeft.length === 0 ? "" : `; the room was not told that it was left by ${notLeft.join(", ")}`;
  return `purged ${roomId}: ${who}${told}${failed}\n`;
}
