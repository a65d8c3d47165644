import type { ChildProcess } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { msToTs } from "@temporalio/common/lib/time.js";
import { pino } from "pino";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { reservedPort } from "../../support/reserved-port.ts";
import { startEmbeddedTemporal } from "../../../src/main/embedded/temporal.ts";
import { loadConfig } from "../../../src/main/config.ts";
import { ensureReconcileSchedule } from "../../../src/main/reconcile-schedule.ts";
import { createResyncStarter } from "../../../src/main/resync-starter.ts";
import { openTemporal, type TemporalLink } from "../../../src/main/temporal-connection.ts";
import type { RoomId } from "../../../src/matrix/identifiers.ts";
import { createResyncWorkflows } from "../../../src/operator/resync-workflows.ts";
import { resyncWorkflowId } from "../../../workflows/contract.ts";
import { cloneDatabase } from "../../support/database.ts";
import { eventually, sidecarSettings, spawnFastjoin } from "../../support/sidecar-process.ts";
import { temporalCli } from "../../support/temporal-cli.ts";

const logger = pino({ level: "silent" });
const SERVER = "ours.example:8448";

describe("with an embedded Temporal", () => {
  let dataDir: string;
  let server: ChildProcess;
  let link: TemporalLink;
  let port: number;
  let room: RoomId;
  let rooms = 0;

  beforeAll(async () => {
    dataDir = await mkdtemp(join(tmpdir(), "fastjoin-test-"));
    port = await reservedPort();
    server = await startEmbeddedTemporal({
      cli: await temporalCli(),
      dataDir,
      port,
      uiPort: await reservedPort(),
      logger,
    });
    link = openTemporal(temporalAt(port), logger);
  });

  afterAll(async () => {
    await link.close();
    server.kill("SIGKILL");
    await rm(dataDir, { recursive: true, force: true, maxRetries: 5 });
  });

  beforeEach(() => {
    rooms += 1;
    room = `!room${rooms}:example.org`;
  });

  const temporalAt = (at: number, serverName = SERVER) =>
    loadConfig({
      FASTJOIN_SERVER_NAME: serverName,
      FASTJOIN_FEDERATION_TLS: "off",
      TEMPORAL_ADDRESS: `127.0.0.1:${at}`,
    }).temporal;

  const describeResync = () => link.client.workflow.getHandle(resyncWorkflowId(SERVER, room)).describe();

  const operator = () =>
    createResyncWorkflows({
      client: link.client,
      namespace: link.namespace,
      serverName: SERVER,
      uiUrl: "http://ui.example",
      within: (work) => link.within(work),
    });

  describe("startEmbeddedTemporal", () => {
    it("takes no other server on its port for its own", async () => {
      const second = join(dataDir, "second");
      const options = { cli: await temporalCli(), dataDir: second, port, uiPort: await reservedPort(), logger };
      await expect(startEmbeddedTemporal(options)).rejects.toThrow(/ended at its start \(exit code 1\)[^]*in use/);
    });

    it("says which program can't be started", async () => {
      const options = {
        cli: "/nonexistent/temporal",
        dataDir,
        port: await reservedPort(),
        uiPort: await reservedPort(),
        logger,
      };
      await expect(startEmbeddedTemporal(options)).rejects.toThrow(/nonexistent\/temporal ENOENT/);
    });
  });

  describe("createResyncStarter", () => {
    it("starts the workflow under the room's id, with what the UI needs to tell the story", async () => {
      await createResyncStarter(link, SERVER).start(room, "$join");
      const description = await describeResync();
      expect(description.type).toBe("resync");
      expect(description.taskQueue).toBe(`fastjoin-${SERVER}`);
      expect(description.memo).toMatchObject({ roomId: room, joinEventId: "$join" });
      expect(Number(description.raw.executionConfig?.defaultWorkflowTaskTimeout?.seconds)).toBe(5);
      expect(description.typedSearchAttributes.getAll().map(({ value }) => value)).toContain(room);
    });

    it("leaves the resync of the same join alone, and replaces that of an older one", async () => {
      const starter = createResyncStarter(link, SERVER);
      await starter.start(room, "$join");
      const { runId } = await describeResync();
      await starter.start(room, "$join");
      expect((await describeResync()).runId).toBe(runId);
      await starter.start(room, "$rejoin");
      const replaced = await describeResync();
      expect(replaced.runId).not.toBe(runId);
      expect(replaced.memo).toMatchObject({ joinEventId: "$rejoin" });
    });

    it("cancels a running resync, and takes none for cancelled", async () => {
      const starter = createResyncStarter(link, SERVER);
      await starter.cancel(room);
      await starter.start(room, "$join");
      await starter.cancel(room);
      const { raw } = await describeResync();
      expect(raw.workflowExtendedInfo?.cancelRequested).toBe(true);
    });

    it("fails, and does not wait for ever, where Temporal is away", async () => {
      const away = openTemporal(temporalAt(await reservedPort()), logger);
      await expect(createResyncStarter(away, SERVER).start(room, "$join")).rejects.toThrow();
      await away.close();
    });
  });

  describe("createResyncWorkflows", () => {
    it("tells a room without a resync", async () => {
      expect(await operator().standing(room)).toEqual({ state: "none" });
      expect(await operator().signalRetry(room)).toBe(false);
      expect(await operator().signalPreferServer(room, "other.example")).toBe(false);
    });

    it("tells that a resync runs and why there is no progress, while no worker does", async () => {
      await createResyncStarter(link, SERVER).start(room, "$join");
      const standing = await operator().standing(room);
      expect(standing).toMatchObject({ state: "running" });
      expect(standing.state === "running" && standing.note).toMatch(/^no worker tells its progress: ./);
      expect(await operator().signalRetry(room)).toBe(true);
      expect(await operator().signalPreferServer(room, "other.example")).toBe(true);
    });

    it("takes a resync that is being cancelled for none that a retry could reach", async () => {
      const starter = createResyncStarter(link, SERVER);
      await starter.start(room, "$join");
      const { runId } = await describeResync();
      await starter.cancel(room);
      expect(await operator().signalRetry(room)).toBe(false);
      await starter.start(room, "$join");
      expect((await describeResync()).runId).toBe(runId);
      await starter.start(room, "$join", { replace: true });
      expect((await describeResync()).runId).not.toBe(runId);
      expect(await operator().signalRetry(room)).toBe(true);
    });

    it("tells what the workflow last told, where no worker does", async () => {
      const servers = [{ name: "one.example", result: "failed", cause: "forbidden", failures: 2, nextAttempt: 5 }];
      const memo = { phase: "waiting", partialEvents: 4, servers };
      const workflowId = resyncWorkflowId(SERVER, room);
      await link.client.workflow.start("resync", { workflowId, taskQueue: link.taskQueue, args: [], memo });
      expect(await operator().standing(room)).toMatchObject({ state: "running", lastKnown: memo });
    });

    it("tells how a resync ended", async () => {
      await createResyncStarter(link, SERVER).start(room, "$join");
      await link.client.workflow.getHandle(resyncWorkflowId(SERVER, room)).terminate();
      expect(await operator().standing(room)).toMatchObject({ state: "closed", status: "terminated" });
    });

    it("tells that Temporal is away", async () => {
      const away = openTemporal(temporalAt(await reservedPort()), logger);
      const access = { client: away.client, namespace: "default", serverName: SERVER, uiUrl: undefined };
      const workflows = createResyncWorkflows({ ...access, within: (work) => away.within(work) });
      expect(await workflows.standing(room)).toMatchObject({ state: "unknown" });
      await away.close();
    });

    it("links to the workflow's page, where the UI's address is known", () => {
      expect(operator().link("!a/b:x")).toBe(
        `http://ui.example/namespaces/default/workflows/${encodeURIComponent(`resync:${SERVER}:!a/b:x`)}`,
      );
    });
  });

  describe("openTemporal", () => {
    it("registers the search attributes, any number of times", async () => {
      expect(await link.searchAttributes()).toBe(true);
      const again = openTemporal(temporalAt(port), logger);
      expect(await again.searchAttributes()).toBe(true);
      await again.close();
    });

    it("goes without search attributes where they are refused", async () => {
      const elsewhere = openTemporal({ ...temporalAt(port), namespace: "no-such-namespace" }, logger);
      expect(await elsewhere.searchAttributes()).toBe(false);
      await elsewhere.close();
    });
  });

  describe("serve", () => {
    it("registers the search attributes at its start, before any workflow is started", async () => {
      const namespace = "without-attributes";
      const { workflowService, operatorService } = link.connection;
      await workflowService.registerNamespace({ namespace, workflowExecutionRetentionPeriod: msToTs("1 day") });
      const attributes = async (): Promise<readonly string[]> =>
        Object.keys((await operatorService.listSearchAttributes({ namespace })).customAttributes ?? {});
      expect(await eventually(() => attributes().catch(() => undefined))).not.toContain("MatrixRoomId");
      const database = await cloneDatabase();
      const settings = await sidecarSettings({
        DATABASE_URL: database.url,
        TEMPORAL_ADDRESS: `127.0.0.1:${port}`,
        TEMPORAL_NAMESPACE: namespace,
        FASTJOIN_OPERATOR_TOKEN: "short",
      });
      const { child, finished, output } = spawnFastjoin(settings.env, "serve");
      try {
        const registered = async () => ((await attributes()).includes("ResyncPhase") ? true : undefined);
        await eventually(registered, { withinMs: 60_000, about: output });
        expect(output()).toContain("FASTJOIN_OPERATOR_TOKEN is short");
      } finally {
        child.kill("SIGTERM");
        await finished;
        await settings.remove();
        await database.drop();
      }
    });
  });

  describe("ensureReconcileSchedule", () => {
    const scheduled = async (id: string) => (await link.client.schedule.getHandle(id).describe()).action;

    it("makes the schedule once, and one with the server's name for another sidecar", async () => {
      await ensureReconcileSchedule(link, SERVER);
      await ensureReconcileSchedule(link, SERVER);
      expect(await scheduled("fastjoin-reconcile")).toMatchObject({
        workflowType: "reconcile",
        taskQueue: `fastjoin-${SERVER}`,
      });
      const other = openTemporal(temporalAt(port, "other.example"), logger);
      await ensureReconcileSchedule(other, "other.example");
      await ensureReconcileSchedule(other, "other.example");
      expect(await scheduled("fastjoin-reconcile:other.example")).toMatchObject({
        taskQueue: "fastjoin-other.example",
      });
      await other.close();
    });
  });
});
