import { runCli } from "./cli.ts";

// Whoever reads our answers may have seen enough, as in `fastjoin rooms | head -1`.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") {
    throw error;
  }
  process.exit();
});

const code = await runCli(process.argv.slice(2), {
  env: process.env,
  write: (text) => void process.stdout.write(text),
  now: Date.now,
});
if (code !== 0) {
  process.exitCode = code;
}
