import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Measured } from "./report.ts";
import { writeTables } from "./write-tables.ts";

/** `npm run bench:docs`: the tables of the last bench, from `bench.json` into docs/performance.md. */
writeTables(JSON.parse(readFileSync(join(import.meta.dirname, "..", "bench.json"), "utf8")) as Measured);
