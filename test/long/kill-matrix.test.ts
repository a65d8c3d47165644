import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ALL_STEPS, isChosen, nameOf, pointOf, SIDES, VICTIMS } from "./kill-matrix/cells.ts";
import { DEEDS_IN_ROOMS } from "./kill-matrix/deeds-in-rooms.ts";
import { DEEDS_OF_USERS } from "./kill-matrix/deeds-of-users.ts";
import {
  killGround,
  killHalves,
  rehearse,
  type Cell,
  type Performance,
  type Programme,
  type Rehearsal,
  type Victim,
} from "./kill-matrix/perform.ts";
import { lacksIn, openTable } from "./kill-matrix/table.ts";
import { openTheatre, type Theatre } from "./kill-matrix/theatre.ts";

/** As many sidecars at once as two cores keep busy while the others wait for a heartbeat that does not come. */
const LANES = Number(process.env["KILL_MATRIX_LANES"] ?? 3);

/** A run of all kills takes its time. */
const WITHIN_MS = process.env["KILL_MATRIX"] === undefined ? 1_200_000 : 3 * 3_600_000;

let theatre: Theatre;
let rehearsals: readonly Rehearsal[] = [];
let cells: readonly Cell[] = [];
let programme: Programme;
const performances: Performance[] = [];

beforeAll(async () => {
  theatre = await openTheatre(LANES);
  rehearsals = await rehearse(theatre, [...DEEDS_IN_ROOMS, ...DEEDS_OF_USERS]);
  cells = chosen();
  const note = openTable(rehearsals, cells);
  programme = {
    theatre,
    rehearsals,
    onDone: (done) => {
      performances.push(done);
      note(done);
      tell(done);
    },
  };
}, 600_000);
afterAll(async () => await theatre.close());

/** The kills of this run, at every point that a deed reaches. */
function chosen(): readonly Cell[] {
  const points = ALL_STEPS.flatMap((step) => SIDES.map((side) => pointOf(side, step)));
  const all = points.flatMap((point) => {
    const half = rehearsals.find(({ reached }) => reached.has(point))?.reached.get(point);
    return VICTIMS.map((victim) => ({ point, victim })).filter((cell) => isChosen(cell, half === cell.victim));
  });
  return process.env["KILL_MATRIX"] === "rest" ? all.filter(lacksIn()) : all;
}

/** Says in the run's log how a kill ended. */
function tell(done: Performance): void {
  const end = done.failure === undefined ? "the same end" : `ANOTHER END: ${String(done.failure as Error)}`;
  process.stderr.write(`${nameOf(done.cell)}: ${end}, ${(done.milliseconds / 1000).toFixed(1)} s\n`);
}

function failuresOf(...victims: readonly Victim[]): readonly string[] {
  return performances
    .filter(({ cell, failure }) => failure !== undefined && victims.includes(cell.victim))
    .map(({ cell, failure }) => `${nameOf(cell)}: ${String(failure as Error)}`);
}

describe("the failpoints", () => {
  it("are all reached, both sides of each, by what users and servers do", () => {
    const reached = new Set(rehearsals.flatMap((one) => [...one.reached.keys()]));
    const points = ALL_STEPS.flatMap((step) => SIDES.map((side) => pointOf(side, step)));
    expect(points.filter((point) => !reached.has(point))).toEqual([]);
  });
});

describe("what users and servers do ends as without a kill", () => {
  it(
    "when serve or worker is killed at a failpoint",
    async () => {
      const halves = cells.filter(({ victim }) => victim === "serve" || victim === "worker");
      await killHalves(programme, halves);
      expect(failuresOf("serve", "worker")).toEqual([]);
    },
    WITHIN_MS,
  );

  for (const part of ["postgres", "temporal"] as const) {
    it(
      `when ${part} is killed at a failpoint`,
      async () => {
        const grounds = cells.filter(({ victim }) => victim === part);
        await killGround(programme, part, grounds);
        expect(failuresOf(part)).toEqual([]);
      },
      WITHIN_MS,
    );
  }
});
