import type { ChangesReport } from "./read-changes.ts";

/** What a resync has changed, for the command line: an event a paragraph. */
export function describeChanges({ roomId, changes }: ChangesReport): string {
  if (changes.length === 0) return `no resync has changed the acceptance of an event of ${roomId}\n`;
  return changes
    .map(({ eventId, type, stateKey, sender, change, rule, reason, at }) => {
      const what = stateKey === undefined ? type : `${type} ${JSON.stringify(stateKey)}`;
      const why = change === "accepted" ? `until then refused by ${rule}` : `refused by ${rule}`;
      return `${new Date(at).toISOString()}  ${change}  ${eventId}\n  ${what} of ${sender}\n  ${why}: ${reason}\n`;
    })
    .join("");
}
