import { expect } from "vitest";
import type { GroundPart } from "../../support/failpoints/grounds.ts";
import type { Point } from "../../support/failpoints/answers.ts";
import type { Armed, Half } from "../../support/failpoints/cast.ts";
import type { Lane } from "../../support/failpoints/lane.ts";
import type { Deed } from "./deeds.ts";
import type { Theatre } from "./theatre.ts";

/** What is killed: a half of the sidecar, or what both halves rely on. */
export type Victim = Half | GroundPart;

/** A deed done without a kill: what it comes to, and the points on its way. */
export interface Rehearsal {
  readonly deed: Deed;
  readonly outcome: unknown;
  readonly reached: ReadonlyMap<Point, Half>;
}

/** Each deed once, with nothing killed. */
export async function rehearse(theatre: Theatre, deeds: readonly Deed[]): Promise<readonly Rehearsal[]> {
  const left = [...deeds];
  const done: Rehearsal[] = [];
  await Promise.all(
    theatre.lanes.map(async (lane) => {
      for (let deed = left.shift(); deed !== undefined; deed = left.shift()) {
        const stage = await theatre.stageOn(lane, deed.name);
        lane.reached.clear();
        const outcome = await deed.run(stage);
        done.push({ deed, outcome, reached: new Map(lane.reached) });
      }
    }),
  );
  return done.toSorted((a, b) => deeds.indexOf(a.deed) - deeds.indexOf(b.deed));
}

/** One kill: at this point, of this victim. */
export interface Cell {
  readonly point: Point;
  readonly victim: Victim;
}

export interface Performance {
  readonly cell: Cell;
  readonly failure: unknown;
  readonly milliseconds: number;
}

/** What a run plays through. */
export interface Programme {
  readonly theatre: Theatre;
  readonly rehearsals: readonly Rehearsal[];
  /** Told of each kill as soon as its end is known. */
  readonly onDone: (done: Performance) => void;
}

/** Where a point is reached, and by whom. */
function rehearsalOf(rehearsals: readonly Rehearsal[], point: Point): { rehearsal: Rehearsal; half: Half } {
  const rehearsal = rehearsals.find(({ reached }) => reached.has(point));
  const half = rehearsal?.reached.get(point);
  if (rehearsal === undefined || half === undefined) throw new Error(`no deed reaches the point ${point}`);
  return { rehearsal, half };
}

interface Struck {
  readonly armed: Armed;
  readonly acting: Promise<unknown>;
  readonly rehearsal: Rehearsal;
}

/** Does a deed up to the point, at which its process is dead now, or waits. */
async function strike({ theatre, rehearsals }: Programme, lane: Lane, cell: Cell): Promise<Struck> {
  const { rehearsal, half } = rehearsalOf(rehearsals, cell.point);
  const stage = await theatre.stageOn(lane, `${cell.point} ${cell.victim}`);
  lane.unasked.length = 0;
  const armed = await lane.arm(cell.point, half === cell.victim ? "die" : "hold");
  const acting = rehearsal.deed.run(stage);
  const struck = await Promise.race([armed.struck, acting.then(() => undefined)]).catch(async (error: unknown) => {
    await armed.disarm();
    throw error;
  });
  if (struck === undefined) {
    await armed.disarm();
    throw new Error(`the point was not reached again: ${rehearsal.deed.name}`);
  }
  return { armed, acting, rehearsal };
}

async function requireSameEnd(lane: Lane, { acting, rehearsal }: Struck): Promise<void> {
  expect(await acting).toEqual(rehearsal.outcome);
  expect(lane.unasked).toEqual([]);
}

/** A kill of one half at each of these points, one after the other on each sidecar. */
export async function killHalves(programme: Programme, cells: readonly Cell[]): Promise<void> {
  const left = [...cells];
  await Promise.all(
    programme.theatre.lanes.map(async (lane) => {
      for (let cell = left.shift(); cell !== undefined; cell = left.shift()) {
        const one = cell;
        await timed(programme, one, async () => await killHalf(programme, lane, one));
      }
    }),
  );
}

async function killHalf(programme: Programme, lane: Lane, cell: Cell): Promise<void> {
  await Promise.all([lane.untilReady("serve"), lane.untilReady("worker")]);
  const struck = await strike(programme, lane, cell);
  const { half } = rehearsalOf(programme.rehearsals, cell.point);
  if (half !== cell.victim) await lane.kill(cell.victim as Half);
  await struck.armed.disarm();
  await requireSameEnd(lane, struck);
}

/** A kill of what all sidecars rely on, while each of them waits at one of these points. */
export async function killGround(programme: Programme, part: GroundPart, cells: readonly Cell[]): Promise<void> {
  const { lanes, grounds } = programme.theatre;
  for (let at = 0; at < cells.length; at += lanes.length) {
    const together = cells.slice(at, at + lanes.length);
    const begun = together.map((cell, index) => strike(programme, lanes[index] as Lane, cell));
    await Promise.allSettled(begun);
    await grounds.kill(part);
    await Promise.all(begun.map(async (one) => await one.then(({ armed }) => armed.disarm()).catch(() => undefined)));
    await grounds.start(part);
    await Promise.all(
      together.map(async (cell, index) => {
        await timed(programme, cell, async () => {
          await requireSameEnd(lanes[index] as Lane, await (begun[index] as Promise<Struck>));
        });
      }),
    );
  }
}

async function timed({ onDone }: Programme, cell: Cell, work: () => Promise<void>): Promise<void> {
  const began = performance.now();
  let failure: unknown;
  try {
    await work();
  } catch (error) {
    failure = error;
  }
  onDone({ cell, failure, milliseconds: performance.now() - began });
}
