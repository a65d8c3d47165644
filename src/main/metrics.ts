import express, { type RequestHandler, type Router } from "express";
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import { lostEventCounts } from "../rooms/lost-events.ts";
import { countFailingAppservices } from "../storage/appservice-pushes.ts";
import type { Database } from "../storage/database.ts";
import { listBackOffs } from "../storage/destinations.ts";
import { outboxDestinations } from "../storage/outbox.ts";
import { countPartialEvents, listPartialRooms } from "../storage/partial-state.ts";
import { countAllWaitingPdus } from "../storage/waiting-pdus.ts";

export interface Metrics {
  /** `GET /_fastjoin/metrics`, in Prometheus' text format. */
  readonly router: Router;
  /** Measures each request of a listener. */
  readonly measure: (listener: "client" | "federation") => RequestHandler;
}

function addDatabaseGauges(registry: Registry, { pool }: Database): void {
  const registers = [registry];
  new Gauge({
    name: "fastjoin_partial_rooms",
    help: "Rooms whose state is partial",
    registers,
    async collect() {
      this.set((await listPartialRooms(pool)).length);
    },
  });
  new Gauge({
    name: "fastjoin_partial_events",
    help: "Events accepted on partial state that are yet to be authorised again",
    registers,
    async collect() {
      const rooms = await listPartialRooms(pool);
      const counts = await Promise.all(rooms.map(({ roomId }) => countPartialEvents(pool, roomId)));
      this.set(counts.reduce((sum, count) => sum + count, 0));
    },
  });
  new Gauge({
    name: "fastjoin_waiting_pdus",
    help: "Received events that can't be handled yet: what they build on is unknown, or their room is being joined",
    registers,
    async collect() {
      this.set(await countAllWaitingPdus(pool));
    },
  });
  new Gauge({
    name: "fastjoin_outbox_destinations",
    help: "Servers that events wait to be sent to",
    registers,
    async collect() {
      this.set((await outboxDestinations(pool)).length);
    },
  });
  new Gauge({
    name: "fastjoin_failing_destinations",
    help: "Servers that are being backed off from",
    registers,
    async collect() {
      this.set((await listBackOffs(pool)).length);
    },
  });
  new Gauge({
    name: "fastjoin_failing_application_services",
    help: "Application services that do not take what is pushed to them",
    registers,
    async collect() {
      this.set(await countFailingAppservices(pool));
    },
  });
}

function addLossCounter(registry: Registry): void {
  new Counter({
    name: "fastjoin_lost_events_total",
    help: "Events that other servers gave us and that were let go, by cause; the log names them",
    labelNames: ["cause"],
    registers: [registry],
    collect() {
      this.reset();
      for (const [cause, count] of lostEventCounts()) this.inc({ cause }, count);
    },
  });
}

export function createMetrics(database: Database): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  addDatabaseGauges(registry, database);
  addLossCounter(registry);
  const durations = new Histogram({
    name: "fastjoin_http_request_duration_seconds",
    help: "Time from a request's head to the end of its answer; long polls of /sync included",
    labelNames: ["listener", "method", "status"],
    buckets: [0.005, 0.025, 0.1, 0.5, 1, 5, 30],
    registers: [registry],
  });
  const router = express.Router();
  router.get("/_fastjoin/metrics", async (_request, response) => {
    response.type(registry.contentType).send(await registry.metrics());
  });
  return {
    router,
    measure: (listener) => (request, response, next) => {
      const end = durations.startTimer({ listener, method: request.method });
      response.once("finish", () => end({ status: String(response.statusCode) }));
      next();
    },
  };
}
