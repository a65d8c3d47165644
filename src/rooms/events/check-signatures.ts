import { extname } from "node:path";
import { setImmediate as nextTick } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import type { SignatureCheck } from "../../matrix/signatures.ts";
import { checkPacked, packSignatures, type SignatureBatch } from "./signature-batch.ts";

/** Fewer are not worth a thread's start. */
const FEW = 100;

/** About 10 ms of work between two turns of the event loop. */
const CHECKS_PER_TURN = 200;

/** A thread holds some megabytes that only a resync needs. */
const IDLE_MS = 5_000;

interface Thread {
  /** Batches are answered in their order. */
  check(batch: SignatureBatch): Promise<Uint8Array>;
}

let running: Thread | undefined;

/**
 * Which of the signatures hold. Many are checked by a thread of its own, so that this one can go on with what comes
 * next; there is one such thread a process, and only while it has work.
 */
export async function checkSignatures(checks: readonly SignatureCheck[]): Promise<readonly boolean[]> {
  if (checks.length < FEW) return await checkHere(checks);
  const results = await threadAtHand()
    .check(packSignatures(checks))
    .catch(() => undefined);
  // A thread that can't be had takes nothing with it but time.
  return results === undefined ? await checkHere(checks) : Array.from(results, Boolean);
}

function threadAtHand(): Thread {
  if (running !== undefined) return running;
  const thread = startThread(() => {
    // A thread that fails ends twice, and another may have taken its place in between.
    if (running === thread) running = undefined;
  });
  running = thread;
  return thread;
}

async function checkHere(checks: readonly SignatureCheck[]): Promise<readonly boolean[]> {
  const holds: boolean[] = [];
  for (let start = 0; start < checks.length; start += CHECKS_PER_TURN) {
    if (start > 0) await nextTick();
    const results = checkPacked(packSignatures(checks.slice(start, start + CHECKS_PER_TURN)));
    for (const result of results) holds.push(result === 1);
  }
  return holds;
}

interface Waiting {
  readonly resolve: (results: Uint8Array) => void;
  readonly reject: (error: Error) => void;
}

function startThread(onEnd: () => void): Thread {
  const extension = extname(import.meta.url);
  const source = new URL(`./signature-thread${extension}`, import.meta.url);
  const resourceLimits = { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4 };
  // From the sources, the thread needs the loader too, which `--import` gives to the main thread alone.
  const worker =
    extension === ".ts"
      ? new Worker(`import("tsx/esm/api").then((tsx) => tsx.tsImport("${source.href}", "${source.href}"))`, {
          eval: true,
          resourceLimits,
        })
      : new Worker(source, { resourceLimits });
  // It must not keep a process alive that has nothing else to do.
  worker.unref();
  const waiting: Waiting[] = [];
  let idle: NodeJS.Timeout | undefined;
  const end = (error: Error): void => {
    clearTimeout(idle);
    onEnd();
    for (const one of waiting.splice(0)) one.reject(error);
  };
  const rest = (): void => {
    worker.unref();
    idle = setTimeout(() => void worker.terminate(), IDLE_MS).unref();
  };
  worker.on("message", (results: Uint8Array) => {
    waiting.shift()?.resolve(results);
    if (waiting.length === 0) rest();
  });
  worker.on("error", end);
  worker.on("exit", () => end(new Error("the thread has ended")));
  return {
    check: (batch) =>
      new Promise((resolve, reject) => {
        clearTimeout(idle);
        worker.ref();
        waiting.push({ resolve, reject });
        worker.postMessage(batch, [batch.buffer]);
      }),
  };
}
