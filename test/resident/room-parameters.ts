import type { RoomVersion } from "../../src/matrix/room-versions.ts";

/** What a generated room is like. Equal parameters make equal rooms, down to the event ids. */
export interface RoomParameters {
  /** Of the servers' keys. */
  readonly seed: string;
  /** Tells rooms apart that are otherwise equal. */
  readonly label: string;
  readonly version: RoomVersion;
  /** Joined members at the end, the creator among them. */
  readonly members: number;
  /** Virtual servers the members are spread over. */
  readonly servers: number;
  readonly joinRule: "public" | "invite" | "knock" | "restricted" | "knock_restricted";
  /** Further users who joined and were banned, kicked, or left. */
  readonly bans: number;
  readonly kicks: number;
  readonly leaves: number;
  /** Members who changed their display name: it makes the auth chain longer. */
  readonly profileChanges: number;
  readonly topicChanges: number;
  readonly messages: number;
  /** Places where two events follow the same one; every other pair sets the same state key. */
  readonly forks: number;
  /** Events that the auth rules refuse, and that the resident keeps as rejected. */
  readonly rejected: number;
  /** Without a name the answer to a partial join holds heroes. */
  readonly named: boolean;
}

export const DEFAULT_ROOM: RoomParameters = {
  seed: "fastjoin",
  label: "",
  version: "11",
  members: 50,
  servers: 5,
  joinRule: "public",
  bans: 2,
  kicks: 2,
  leaves: 2,
  profileChanges: 3,
  topicChanges: 2,
  messages: 10,
  forks: 2,
  rejected: 1,
  named: true,
};
