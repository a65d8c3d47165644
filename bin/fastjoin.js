#!/usr/bin/env node
import { existsSync } from "node:fs";

const entry = new URL("../build/src/main/fastjoin.js", import.meta.url);
if (existsSync(entry)) {
  await import(entry.href);
} else {
  process.stderr.write("fastjoin: there is no build here yet; run `npm ci` or `npm run build`\n");
  process.exitCode = 1;
}
