import { describe, expect, it } from "vitest";
import { parseSyncToken, syncToken } from "../../../src/rooms/read/sync-token.ts";
import { transactionIdOf, transactionKey } from "../../../src/rooms/read/transaction-key.ts";

describe("parseSyncToken", () => {
  it.each([0n, 1n, 123_456_789_012_345_678n, -42n])("reads what syncToken writes: %s", (position) => {
    expect(parseSyncToken(syncToken(position))).toBe(position);
  });

  it.each(["", "s", "12", "t12", "s1.5", "s12 ", "s--1", `s${"9".repeat(30)}`, "S12"])("refuses %j", (text) => {
    expect(() => parseSyncToken(text)).toThrow(expect.objectContaining({ status: 400, errcode: "M_INVALID_PARAM" }));
  });
});

describe("transactionKey", () => {
  it.each(["txn", "a/b", "a%2Fb", "", "ü ?#"])("gives the transaction id back: %j", (txnId) => {
    expect(transactionIdOf(transactionKey(["!room:example.org", "send", "m/type", txnId]))).toBe(txnId);
  });

  it("tells paths apart that differ by where a slash stands", () => {
    expect(transactionKey(["a/b", "c"])).not.toBe(transactionKey(["a", "b/c"]));
  });
});
