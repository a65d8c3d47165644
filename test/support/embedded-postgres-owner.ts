import { startEmbeddedPostgres } from "../../src/main/embedded/postgres.ts";

/** Started as a process of its own: owns an embedded PostgreSQL until it is killed, and says so on one line. */
const [dataDir = ""] = process.argv.slice(2);
const { url, pid } = await startEmbeddedPostgres({ dataDir });
process.stdout.write(`${JSON.stringify({ url, pid })}\n`);
setInterval(() => undefined, 60_000);
