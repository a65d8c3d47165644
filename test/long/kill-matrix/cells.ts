import { STEPS, type Step } from "../../../src/rooms/failpoints.ts";
import { ANSWERS, type Answer, type Point } from "../../support/failpoints/answers.ts";
import type { Victim } from "./perform.ts";

/** Every step in the order of the product's own list, and the answers behind them. */
export const ALL_STEPS: readonly (Step | Answer)[] = [...STEPS, ...(Object.keys(ANSWERS) as Answer[])];

export const VICTIMS = ["serve", "worker", "postgres", "temporal"] as const satisfies readonly Victim[];

export const SIDES = ["before", "after"] as const;
export type Side = (typeof SIDES)[number];

export function pointOf(side: Side, step: Step | Answer): Point {
  return `${side}: ${step}`;
}

/**
 * Which kills a run makes: at each point the half that reaches it, and of PostgreSQL and Temporal those at the steps
 * that rely on them most, so that it stays within minutes. `KILL_MATRIX=whole` makes all of them, `KILL_MATRIX_AT` those
 * at the points that it matches.
 */
export function isChosen(point: Point, victim: Victim, isReachedBy: boolean): boolean {
  const only = process.env["KILL_MATRIX_AT"];
  if (only !== undefined && !new RegExp(only).test(point)) return false;
  if (process.env["KILL_MATRIX"] === "whole" || isReachedBy) return true;
  const step = point.slice(point.indexOf(": ") + 2) as Step | Answer;
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
  "wake a resync",
  "report a fetched state",
  "report repaired events",
  "report a finished resync",
  "start a resync anew",
]);
