import { runCli } from "./cli.ts";

const code = await runCli(process.argv.slice(2), {
  env: process.env,
  write: (text) => void process.stdout.write(text),
  now: Date.now,
});
if (code !== 0) {
  process.exitCode = code;
}
