import { describe, expect, it } from "vitest";

import { checkAuthEventsSelection } from "../../src/matrix/authorization/auth-events-selection.ts";
import { authEventIds } from "../../src/matrix/event.ts";
import { ROOM_VERSIONS } from "../../src/matrix/room-versions.ts";
import {
  ALICE,
  aRoom,
  BOB,
  CHARLIE,
  DORA,
  joinRules,
  judge,
  member,
  openRoom,
  powerLevels,
  topic,
  usersWith,
} from "../support/builders.ts";
import type { EventDraft, TestRoom } from "../support/builders.ts";

interface Case {
  /** Completes "allows" or "refuses". */
  readonly what: string;
  readonly before?: (room: TestRoom) => readonly EventDraft[];
  readonly draft: EventDraft | ((room: TestRoom) => EventDraft);
  /** The versions that allow it: "all", "none", or the first and the last of them. */
  readonly allowed: "all" | "none" | readonly [first: number, last: number];
}

const vouchedJoin = member(DORA, "join", DORA, { join_authorised_via_users_server: BOB });
const withJoinRule = (rule: string) => () => [joinRules(ALICE, rule)];

/** One room, in which Alice rules, Bob has 50, Charlie is a member and Dora is outside: who may do what, by version. */
const CASES: readonly Case[] = [
  { what: "a message of a member", draft: { type: "m.room.message", sender: CHARLIE }, allowed: "all" },
  { what: "a message of an outsider", draft: { type: "m.room.message", sender: DORA }, allowed: "none" },
  { what: "a topic of a moderator", draft: topic(BOB, "x"), allowed: "all" },
  { what: "a topic of a plain member", draft: topic(CHARLIE, "x"), allowed: "none" },
  { what: "somebody else's state", draft: { type: "m.x", sender: BOB, stateKey: ALICE }, allowed: "none" },
  { what: "a join of a public room", draft: member(DORA, "join"), allowed: "all" },
  { what: "a join for another", draft: member(ALICE, "join", DORA), allowed: "none" },
  {
    what: "a join of a banned user",
    before: () => [member(ALICE, "ban", DORA)],
    draft: member(DORA, "join"),
    allowed: "none",
  },
  {
    what: "a join of an invite-only room without an invite",
    before: withJoinRule("invite"),
    draft: member(DORA, "join"),
    allowed: "none",
  },
  {
    what: "a join of an invite-only room with an invite",
    before: () => [joinRules(ALICE, "invite"), member(BOB, "invite", DORA)],
    draft: member(DORA, "join"),
    allowed: "all",
  },
  {
    what: "a join of a private room with an invite",
    before: () => [joinRules(ALICE, "private"), member(BOB, "invite", DORA)],
    draft: member(DORA, "join"),
    allowed: "none",
  },
  {
    what: "a join of a knock room with an invite",
    before: () => [joinRules(ALICE, "knock"), member(BOB, "invite", DORA)],
    draft: member(DORA, "join"),
    allowed: [7, 12],
  },
  { what: "a knock", before: withJoinRule("knock"), draft: member(DORA, "knock"), allowed: [7, 12] },
  {
    what: "a knock on a knock_restricted room",
    before: withJoinRule("knock_restricted"),
    draft: member(DORA, "knock"),
    allowed: [10, 12],
  },
  { what: "a knock on a public room", draft: member(DORA, "knock"), allowed: "none" },
  {
    what: "a join of a restricted room that a member vouches for",
    before: withJoinRule("restricted"),
    draft: vouchedJoin,
    allowed: [8, 12],
  },
  {
    what: "a join of a knock_restricted room that a member vouches for",
    before: withJoinRule("knock_restricted"),
    draft: vouchedJoin,
    allowed: [10, 12],
  },
  {
    what: "a join of a restricted room that nobody vouches for",
    before: withJoinRule("restricted"),
    draft: member(DORA, "join"),
    allowed: "none",
  },
  { what: "an invite by a member", draft: member(CHARLIE, "invite", DORA), allowed: "all" },
  { what: "an invite of a member", draft: member(BOB, "invite", CHARLIE), allowed: "none" },
  { what: "a kick by a moderator", draft: member(BOB, "leave", CHARLIE), allowed: "all" },
  { what: "a kick of an admin", draft: member(BOB, "leave", ALICE), allowed: "none" },
  { what: "a ban by a moderator", draft: member(BOB, "ban", DORA), allowed: "all" },
  { what: "a ban by a plain member", draft: member(CHARLIE, "ban", DORA), allowed: "none" },
  {
    what: "an unban by a moderator",
    before: () => [member(ALICE, "ban", DORA)],
    draft: member(BOB, "leave", DORA),
    allowed: "all",
  },
  { what: "a leave of a member", draft: member(CHARLIE, "leave"), allowed: "all" },
  { what: "a leave of an outsider", draft: member(DORA, "leave"), allowed: "none" },
  { what: "a membership that is unknown", draft: member(CHARLIE, "here"), allowed: "none" },
  {
    what: "aliases of an outsider's server",
    draft: { type: "m.room.aliases", sender: DORA, stateKey: "four.example", content: { aliases: [] } },
    allowed: [1, 5],
  },
  {
    what: "aliases of a moderator for another server",
    draft: { type: "m.room.aliases", sender: BOB, stateKey: "one.example" },
    allowed: [6, 12],
  },
  {
    what: "a member's redaction of another server's event",
    draft: { type: "m.room.redaction", sender: CHARLIE, extra: { redacts: "$x:one.example" } },
    allowed: [3, 12],
  },
  {
    what: "a change of notification levels above the sender",
    draft: (room) => powerLevels(BOB, { users: usersWith(room, { [BOB]: 50 }), notifications: { room: 60 } }),
    allowed: [1, 5],
  },
  {
    what: "power levels in strings",
    draft: (room) => powerLevels(BOB, { users: usersWith(room, { [BOB]: "50" }), kick: " 050 " }),
    allowed: [1, 9],
  },
  {
    what: "power levels that raise a peer above the sender",
    draft: (room) => powerLevels(BOB, { users: usersWith(room, { [BOB]: 50, [CHARLIE]: 51 }) }),
    allowed: "none",
  },
  {
    what: "power levels that name the room's creator",
    draft: powerLevels(ALICE, { users: { [ALICE]: 100, [BOB]: 50 } }),
    allowed: [1, 11],
  },
  {
    what: "power levels that take the creator's own away",
    draft: powerLevels(ALICE, { users: { [BOB]: 50 } }),
    allowed: "all",
  },
];

describe.each(ROOM_VERSIONS)("authorize in room version %s", (version) => {
  const isAllowed = ({ allowed }: Case): boolean => {
    if (allowed === "all" || allowed === "none") return allowed === "all";
    return Number(version) >= allowed[0] && Number(version) <= allowed[1];
  };

  it.each(CASES.map((one) => [isAllowed(one) ? "allows" : "refuses", one.what, one] as const))(
    "%s %s",
    (_, __, one) => {
      const room = aRoom(version);
      const start = room.send(openRoom(room, { [BOB]: 50 }), ...(one.before?.(room) ?? []));
      const draft = typeof one.draft === "function" ? one.draft(room) : one.draft;
      expect(judge(room, start, draft)).toMatchObject({ allowed: isAllowed(one) });
    },
  );

  it("lets every allowed event cite just what the selection finds in the state", () => {
    const room = aRoom(version);
    openRoom(room, { [BOB]: 50 });
    for (const event of room.events.values()) {
      expect(checkAuthEventsSelection(event, authEventIds(event.pdu).map(room.event), room.rules).allowed).toBe(true);
    }
  });
});
