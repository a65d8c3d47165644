import { describe, expect, it } from "vitest";
import { compareStates } from "../../../demo/compare-states.ts";

describe("compareStates", () => {
  it("finds what is missing on either side, and what is another event", () => {
    const ours = new Map([
      ["same", "$1"],
      ["other", "$2"],
      ["ours", "$3"],
    ]);
    const theirs = new Map([
      ["same", "$1"],
      ["other", "$4"],
      ["theirs", "$5"],
    ]);
    expect(compareStates(ours, theirs)).toEqual({ compared: 4, different: ["other", "ours", "theirs"] });
    expect(compareStates(ours, ours)).toEqual({ compared: 3, different: [] });
  });
});
