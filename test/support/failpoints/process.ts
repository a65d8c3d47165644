/**
 * `serve` or `worker` as they are, with a test at their failpoints: it is told what is reached, and says by the channel
 * between them where the process is to end itself, or to wait.
 */
import { ServerResponse } from "node:http";
import type { IncomingMessage } from "node:http";
import { loadConfig } from "../../../src/main/config.ts";
import { serve } from "../../../src/main/serve.ts";
import { work } from "../../../src/main/worker.ts";
import { answerTo, type Point } from "./answers.ts";
import type { Order, Report } from "./orders.ts";

let armed: Extract<Order, { order: "arm" }> | undefined;
let goOn = (): void => {};

function tell(report: Report): void {
  process.send?.(report);
}

async function reach(point: Point): Promise<void> {
  tell({ report: "reached", point });
  if (armed?.point !== point) return;
  const { how } = armed;
  armed = undefined;
  if (how === "die") process.kill(process.pid, "SIGKILL");
  await new Promise<void>((resolve) => {
    goOn = resolve;
    tell({ report: "held", point });
  });
}

/** Puts the failpoints of answers around each one that says that all is well. */
function standAtAnswers(): void {
  type End = (this: ServerResponse, ...given: unknown[]) => ServerResponse;
  const prototype = ServerResponse.prototype as unknown as { end: End };
  const { end } = prototype;
  prototype.end = function answer(...given) {
    const request = this.req as IncomingMessage & { readonly originalUrl?: string };
    const name = answerTo(request.method ?? "", request.originalUrl ?? request.url ?? "");
    if (name === undefined || this.statusCode !== 200) return end.apply(this, given);
    this.once("finish", () => void reach(`after: ${name}`));
    void reach(`before: ${name}`).then(() => end.apply(this, given));
    return this;
  };
}

let aheadMs = 0;

/** Whoever asks for the time gets this process's own. */
function installClock(): void {
  const RealDate = Date;
  const now = (): number => RealDate.now() + aheadMs;
  globalThis.Date = class extends RealDate {
    constructor(...given: readonly unknown[]) {
      super(...((given.length === 0 ? [now()] : given) as [number]));
    }
    static override readonly now = now;
  } as DateConstructor;
}

function obey(order: Order): void {
  switch (order.order) {
    case "begin":
      void begin();
      return;
    case "arm":
      armed = order;
      break;
    case "disarm":
      armed = undefined;
      break;
    case "go on":
      goOn();
      break;
    case "clock":
      ({ aheadMs } = order);
  }
  tell({ report: "ordered" });
}

async function begin(): Promise<void> {
  process.off("disconnect", leave);
  const config = loadConfig(process.env);
  const [half, bundle = ""] = process.argv.slice(2);
  if (half === "serve") await serve(config, { reach });
  else await work(config, { reach, workflows: { workflowBundle: { codePath: bundle } } });
}

const leave = (): void => process.exit();
process.on("message", (order) => obey(order as Order));
process.on("disconnect", leave);
installClock();
standAtAnswers();
tell({ report: "loaded" });
