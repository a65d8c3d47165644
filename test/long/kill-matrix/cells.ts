import { STEPS, type Step } from "../../../src/rooms/failpoints.ts";
import { ANSWERS, type Answer, type Point } from "../../support/failpoints/answers.ts";
import type { Cell, Victim } from "./perform.ts";

/** Every step in the order of the product's own list, and the answers behind them. */
export const ALL_STEPS: readonly (Step | Answer)[] = [...STEPS, ...(Object.keys(ANSWERS) as Answer[])];

export const VICTIMS = ["serve", "worker", "postgres", "temporal"] as const satisfies readonly Victim[];

export const SIDES = ["before", "after"] as const;
export type Side = (typeof SIDES)[number];

export function pointOf(side: Side, step: Step | Answer): Point {
  return `${side}: ${step}`;
}

/** How a kill is called in the run's log, and by `KILL_MATRIX_AT`. */
export function nameOf({ point, victim }: Cell): string {
  return `${point}, ${victim} killed`;
}

/**
 * Which kills a run makes, so that it stays within minutes: of the half that reaches a point, the far side of the steps
 * on the way of an event or a resync and of those that someone else has noticed by then, and both sides of those that
 * write most; of PostgreSQL and Temporal, the far side of the steps that rely on them most. `KILL_MATRIX=whole` makes all of them, `KILL_MATRIX=rest` those that the page's
 * table lacks, `KILL_MATRIX_AT` those whose names it matches.
 */
export function isChosen({ point, victim }: Cell, isReachedBy: boolean): boolean {
  const only = process.env["KILL_MATRIX_AT"];
  if (only !== undefined && !new RegExp(only).test(nameOf({ point, victim }))) return false;
  if (only !== undefined || process.env["KILL_MATRIX"] !== undefined) return true;
  const step = point.slice(point.indexOf(": ") + 2) as Step | Answer;
  if (isReachedBy && AT_POSTGRES.has(step)) return true;
  if (point.startsWith("before: ")) return false;
  if (isReachedBy) return ON_THE_WAY.has(step) || NOTICED.has(step);
  return victim === "postgres" ? AT_POSTGRES.has(step) : victim === "temporal" && AT_TEMPORAL.has(step);
}

const AT_POSTGRES: ReadonlySet<Step | Answer> = new Set([
  "store a join",
  "accept an event",
  "store the answer to a transaction",
  "store an event of ours",
  "begin a transaction",
  "take a transaction off",
  "confirm a state",
  "repair events",
  "finish a resync",
]);

const AT_TEMPORAL: ReadonlySet<Step | Answer> = new Set([
  "start a resync",
  "report a fetched state",
  "report repaired events",
  "report a finished resync",
]);

const ON_THE_WAY: ReadonlySet<Step | Answer> = new Set([
  ...AT_POSTGRES,
  ...AT_TEMPORAL,
  "send a join",
  "keep an event",
  "delete a kept event",
  "settle a waiting event",
  "send a transaction",
  "store state ids",
  "store outliers",
  "say a resync's next step",
  "give up a room that was left",
]);

/** Another server, a user, an operator or an application service has seen it, or will not tell it again. */
const NOTICED: ReadonlySet<Step | Answer> = new Set([
  "store an invitation",
  "create a room",
  "send a knock",
  "send a leave",
  "store a leave from outside",
  "send an invitation",
  "note an operator's wish",
  "note a purge",
  "push to an application service",
  "send to devices",
  "store messages to devices",
  "answer a client's message",
  "answer a transaction",
  "answer a server's join",
]);
