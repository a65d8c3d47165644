import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ALL_STEPS, isChosen, pointOf, SIDES, VICTIMS } from "./kill-matrix/cells.ts";
import { DEEDS_IN_ROOMS } from "./kill-matrix/deeds-in-rooms.ts";
import { DEEDS_OF_USERS } from "./kill-matrix/deeds-of-users.ts";
import {
  killGround,
  killHalves,
  rehearse,
  type Cell,
  type Performance,
  type Rehearsal,
} from "./kill-matrix/perform.ts";
import { writeTable } from "./kill-matrix/table.ts";
import { openTheatre, type Theatre } from "./kill-matrix/theatre.ts";

/** As many sidecars at once as two cores keep busy while the others wait for a heartbeat that does not come. */
const LANES = 3;

let theatre: Theatre;
let rehearsals: readonly Rehearsal[] = [];
const performances: Performance[] = [];

beforeAll(async () => {
  theatre = await openTheatre(LANES);
  rehearsals = await rehearse(theatre, [...DEEDS_IN_ROOMS, ...DEEDS_OF_USERS]);
}, 600_000);
afterAll(async () => {
  await theatre.close();
  await writeTable(rehearsals, performances);
});

/** The kills of this run, at every point that a deed reaches. */
function chosen(): readonly Cell[] {
  const points = ALL_STEPS.flatMap((step) => SIDES.map((side) => pointOf(side, step)));
  return points.flatMap((point) => {
    const half = rehearsals.find(({ reached }) => reached.has(point))?.reached.get(point);
    return VICTIMS.filter((victim) => isChosen(point, victim, half === victim)).map((victim) => ({ point, victim }));
  });
}

function failures(done: readonly Performance[]): readonly string[] {
  return done
    .filter(({ failure }) => failure !== undefined)
    .map(({ cell, failure }) => `${cell.point}, ${cell.victim} killed: ${String(failure)}`);
}

describe("the failpoints", () => {
  it("are all reached, both sides of each, by what users and servers do", () => {
    const reached = new Set(rehearsals.flatMap((one) => [...one.reached.keys()]));
    const points = ALL_STEPS.flatMap((step) => SIDES.map((side) => pointOf(side, step)));
    expect(points.filter((point) => !reached.has(point))).toEqual([]);
  });
});

describe("what users and servers do ends as without a kill", () => {
  it("when serve or worker is killed at a failpoint", async () => {
    const cells = chosen().filter(({ victim }) => victim === "serve" || victim === "worker");
    performances.push(...(await killHalves(theatre, rehearsals, cells)));
    expect(failures(performances)).toEqual([]);
  });

  for (const part of ["postgres", "temporal"] as const) {
    it(`when ${part} is killed at a failpoint`, async () => {
      const cells = chosen().filter(({ victim }) => victim === part);
      const done = await killGround(theatre, rehearsals, { part, cells });
      performances.push(...done);
      expect(failures(done)).toEqual([]);
    });
  }
});
