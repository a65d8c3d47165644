import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { STEPS } from "../../../src/rooms/failpoints.ts";

const ROOT = join(import.meta.dirname, "../../..");

const sources = ["src", "activities"].flatMap((folder) =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !name.startsWith(join("storage", "generated")))
    .map((name) => ({ name: join(folder, name), text: readFileSync(join(ROOT, folder, name), "utf8") })),
);

/** What they read in one transaction is seen by nobody. */
const READ_ONLY = ["src/rooms/send/invite-remote-user.ts"];

describe("failpoints", () => {
  it("stand around every transaction of the use cases", () => {
    const bare = sources.filter(({ name, text }) => name.startsWith("src/rooms/") && /\btransaction\(/.test(text));
    expect(bare.map(({ name }) => name).toSorted()).toEqual(["src/rooms/failpoints.ts", ...READ_ONLY].toSorted());
  });

  it("are all in use", () => {
    const used = sources.filter(({ name }) => name !== "src/rooms/failpoints.ts").map(({ text }) => text);
    expect(STEPS.filter((step) => !used.some((text) => text.includes(`"${step}"`)))).toEqual([]);
  });
});
