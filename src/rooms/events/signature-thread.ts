import { parentPort } from "node:worker_threads";
import { checkPacked, type SignatureBatch } from "./signature-batch.ts";

/** The thread of `check-signatures.ts`: a batch in, a byte for each of its checks out. */
parentPort?.on("message", (batch: SignatureBatch) => {
  const results = checkPacked(batch);
  parentPort?.postMessage(results, [results.buffer]);
});
