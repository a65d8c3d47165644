import { mkdtempSync, chmodSync, writeFileSync, readFileSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { registerClient } from "../demo/chat-client.ts";
import { spawnResident } from "../test/resident/spawn-resident.ts";
import { measureJoin } from "./measure-join.ts";
import { openFastjoin } from "./products.ts";
const MEMBERS = Number(process.argv[2] ?? 5000);
const dir = mkdtempSync(join(tmpdir(), "fastjoin-prof-"));
chmodSync(dir, 0o711);
process.env.NODE_OPTIONS = "";
const resident = await spawnResident();
const open: { stop(): Promise<void> }[] = [resident];
try {
  if (process.argv[3] === "prof") process.env.NODE_OPTIONS = "--require /tmp/fj/prof.cjs";
  const p = await openFastjoin({
    directory: dir,
    notary: resident.serverNames[0]!,
    fromSource: false,
    opened: (o) => open.push(o),
  });
  process.env.NODE_OPTIONS = "";
  const client = await registerClient(p.clientUrl, "bench");
  const running = JSON.parse(readFileSync(join(dir, "fastjoin/running.json"), "utf8"));
  const run = async (members: number, label: string) => {
    const { roomId, founder } = await resident.call("hostRoom", {
      members: members - 1,
      servers: process.argv[4] === "sending" ? 5 : 50,
      label,
      messages: 50,
    });
    const seen = (await resident.call("requests")).length;
    const at = Date.now();
    const f = await measureJoin({
      product: p,
      client,
      resident,
      roomId,
      founder,
      members,
      manner: (process.argv[4] ?? "quiet") as "quiet",
    });
    console.log(label, JSON.stringify(f));
    const reqs = (await resident.call("requests")).slice(seen);
    const by: Record<string, number> = {};
    for (const r of reqs) by[r.endpoint] = (by[r.endpoint] ?? 0) + 1;
    console.log(JSON.stringify(by));
    for (const r of reqs)
      if (r.at >= at && r.endpoint !== "event") console.log("  req", r.endpoint, r.at - at, r.milliseconds);
    return { roomId, at };
  };
  await run(200, "w");
  await run(MEMBERS, "p1");
  const db = new pg.Client({ connectionString: p.databaseUrl });
  await db.connect();
  if (process.argv[3] === "sql") {
    await db.query("ALTER SYSTEM SET log_min_duration_statement = 0");
    await db.query("ALTER SYSTEM SET log_line_prefix = '%m [%p] '");
    await db.query("SELECT pg_reload_conf()");
    await new Promise((r) => setTimeout(r, 500));
  }
  const { roomId, at } = await run(MEMBERS, "p2");
  await db.end();
  const cli =
    readFileSync("/dev/null", "utf8") +
    execFileSync("sh", ["-c", "find -L .fastjoin -name temporal -type f -perm -u+x | head -1"]).toString().trim();
  const wf = `resync:${p.serverName}:${roomId}`;
  const out = execFileSync(cli, [
    "workflow",
    "show",
    "-w",
    wf,
    "--address",
    running.temporalAddress,
    "-o",
    "json",
  ]).toString();
  for (const e of JSON.parse(out).events) {
    const a = e.activityTaskScheduledEventAttributes?.activityType?.name ?? "";
    console.log("  wf", new Date(e.eventTime).getTime() - at, e.eventType.replace("EVENT_TYPE_", ""), a);
  }
  if (process.argv[3] === "sql")
    writeFileSync("/tmp/fj/prof/pg.log", readFileSync(join(dir, "fastjoin/postgres/postgres.log")));
} finally {
  for (const o of open.reverse()) await o.stop();
}
