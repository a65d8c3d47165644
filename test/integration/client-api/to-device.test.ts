import { describe, expect, it } from "vitest";
import { openTestDatabase } from "../../support/database.ts";
import { startLoopbackClientApi } from "../../support/loopback-client.ts";
import type { Body, TestClient } from "../../support/loopback-client.ts";

const database = await openTestDatabase();
const api = await startLoopbackClientApi(database);
const alice = await api.register("alice");

let transactions = 0;

async function send(to: Body, txnId?: string): Promise<void> {
  transactions += 1;
  const path = `sendToDevice/org.example.note/${txnId ?? `txn${transactions}`}`;
  await alice.ok("PUT", path, { body: { messages: to } });
}

const texts = (synced: Body): readonly unknown[] =>
  (synced.to_device?.events ?? []).map((event: Body) => event.content.text);

describe("sendToDevice", () => {
  it("reaches one device, or all of a user's", async () => {
    const phone = await api.register("bob");
    const tablet = await api.login("bob", "TABLET");
    await send({ [phone.userId]: { TABLET: { text: "for the tablet" }, GONE: { text: "lost" } } });
    await send({ [phone.userId]: { "*": { text: "for all" } } });
    expect(texts(await phone.sync())).toEqual(["for all"]);
    const synced = await tablet.sync();
    expect(synced.to_device.events).toEqual([
      { sender: alice.userId, type: "org.example.note", content: { text: "for the tablet" } },
      { sender: alice.userId, type: "org.example.note", content: { text: "for all" } },
    ]);
  });

  it("sends once for each transaction id of a type", async () => {
    const carol = await api.register("carol");
    await send({ [carol.userId]: { "*": { text: "first" } } }, "same");
    await send({ [carol.userId]: { "*": { text: "again" } } }, "same");
    expect(texts(await carol.sync())).toEqual(["first"]);
  });

  it("is repeated until it is acknowledged, and wakes a sync that waits", async () => {
    const dave = await api.register("dave");
    const { next_batch: since } = await dave.sync();
    const waiting = dave.sync({ since, timeout: "600000" });
    await send({ [dave.userId]: { "*": { text: "hello" } } });
    const first = await waiting;
    expect(texts(first)).toEqual(["hello"]);
    expect(texts(await dave.sync({ since }))).toEqual(["hello"]);
    const second = await dave.sync({ since: first.next_batch });
    expect(texts(second)).toEqual([]);
    expect(texts(await dave.sync({ since }))).toEqual([]);
  });

  it("hands out a hundred at a time, and loses none", async () => {
    const erin: TestClient = await api.register("erin");
    for (let count = 0; count < 205; count += 1) await send({ [erin.userId]: { "*": { text: count } } });
    const all: unknown[] = [];
    let since: string | undefined;
    const sizes: number[] = [];
    do {
      const synced: Body = await erin.sync(since === undefined ? {} : { since });
      since = synced.next_batch;
      all.push(...texts(synced));
      sizes.push(texts(synced).length);
    } while (sizes.at(-1) !== 0);
    expect(sizes).toEqual([100, 100, 5, 0]);
    expect(all).toEqual(Array.from({ length: 205 }, (_, index) => index));
  });

  it.each([{}, { messages: { bob: {} } }, { messages: { "@bob:us.example": { PHONE: "text" } } }])(
    "refuses %j",
    async (body) => {
      const refused = await alice.call("PUT", "sendToDevice/org.example.note/bad", { body });
      expect([refused.status, refused.body.errcode]).toEqual([400, "M_BAD_JSON"]);
    },
  );
});
