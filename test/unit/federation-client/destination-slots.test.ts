import { describe, expect, it } from "vitest";
import { createDestinationSlots } from "../../../src/federation-client/destination-slots.ts";

describe("createDestinationSlots", () => {
  it("lets so many pass per server, and the next in line when one is done", async () => {
    const slots = createDestinationSlots(2);
    const order: string[] = [];
    const first = await slots.take("a");
    await slots.take("a");
    const third = slots.take("a").then(() => order.push("third"));
    const fourth = slots.take("a").then(() => order.push("fourth"));
    await slots.take("b").then(() => order.push("b"));
    expect(order).toEqual(["b"]);
    first();
    await third;
    expect(order).toEqual(["b", "third"]);
    first();
    await fourth;
  });

  it("lets a waiting caller go, whose place the next one gets", async () => {
    const slots = createDestinationSlots(1);
    const release = await slots.take("a");
    const impatience = new AbortController();
    const given = slots.take("a", impatience.signal);
    const next = slots.take("a");
    impatience.abort(new Error("enough"));
    await expect(given).rejects.toThrow("enough");
    release();
    await next;
  });

  it("refuses a caller who has given up already", async () => {
    await expect(createDestinationSlots(1).take("a", AbortSignal.abort(new Error("enough")))).rejects.toThrow("enough");
  });
});
