import type { Worker } from "node:worker_threads";
import { afterAll, describe, expect, it } from "vitest";
import sodium from "sodium-native";
import { signingKeyFromSeed, type SignatureCheck } from "../../../src/matrix/signatures.ts";
import { checkSignatures } from "../../../src/rooms/events/check-signatures.ts";

const key = signingKeyFromSeed("ed25519:1", Buffer.alloc(32, 7));

const threads: Worker[] = [];
const onThread = (thread: Worker): void => void threads.push(thread);
process.on("worker", onThread);
afterAll(() => void process.off("worker", onThread));

/** Every third is of another text than it says. */
function someChecks(count: number): readonly SignatureCheck[] {
  return Array.from({ length: count }, (_, index) => {
    const text = `{"content":"ö ${index} ${"x".repeat(index % 50)}"}`;
    const signature = Buffer.alloc(64);
    sodium.crypto_sign_detached(signature, Buffer.from(text), Buffer.from(key.secretKey));
    return { text: index % 3 === 0 ? `${text} ` : text, signature, publicKey: key.publicKey };
  });
}

const expected = (count: number): readonly boolean[] => Array.from({ length: count }, (_, index) => index % 3 !== 0);

describe("checkSignatures", () => {
  it("checks a few at once, in their order", async () => {
    expect(await checkSignatures([])).toEqual([]);
    expect(await checkSignatures(someChecks(7))).toEqual(expected(7));
  });

  it("checks many in a thread, batch by batch, and tells each caller of its own", async () => {
    const sizes = [200, 431, 250];
    const answers = await Promise.all(sizes.map((size) => checkSignatures(someChecks(size))));
    expect(answers).toEqual(sizes.map(expected));
  });

  it("has one thread in the place of one that failed, also when that has ended at last", async () => {
    const check = async (): Promise<void> => expect(await checkSignatures(someChecks(200))).toEqual(expected(200));
    await check();
    const failing = threads.at(-1);
    const before = threads.length;
    failing?.emit("error", new Error("it fails"));
    await check();
    await failing?.terminate();
    await check();
    expect(threads.length - before).toBe(1);
  });
});
