import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { IMPLEMENTATION } from "../../../src/federation-server/version.ts";

describe("IMPLEMENTATION", () => {
  it("names the version of the package", () => {
    const text = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
    expect(IMPLEMENTATION.version).toBe((JSON.parse(text) as { version: string }).version);
  });
});
