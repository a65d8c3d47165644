import { describe, expect, it } from "vitest";
import { createAddressBlocklist, PRIVATE_RANGES } from "../../../src/federation-client/address-blocklist.ts";

describe("createAddressBlocklist", () => {
  const privateRanges = createAddressBlocklist(PRIVATE_RANGES);

  it.each([
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.31.255.255",
    "192.168.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fd00::1",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
  ])("blocks the private address %s", (address) => {
    expect(privateRanges.blocks(address)).toBe(true);
  });

  it.each([
    ["mapped", "::ffff:127.0.0.1"],
    ["mapped, in hexadecimal", "::ffff:7f00:1"],
    ["mapped, written out", "0:0:0:0:0:ffff:0a00:0001"],
    ["compatible", "::192.168.0.1"],
    ["NAT64", "64:ff9b::10.0.0.1"],
    ["6to4", "2002:c0a8:0101::1"],
  ])("blocks a private IPv4 address inside an IPv6 one: %s", (_how, address) => {
    expect(privateRanges.blocks(address)).toBe(true);
  });

  it.each(["1.1.1.1", "172.32.0.1", "192.169.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"])(
    "lets the public address %s pass",
    (address) => {
      expect(privateRanges.blocks(address)).toBe(false);
    },
  );

  it("takes single addresses and ranges of both families", () => {
    const list = createAddressBlocklist(["8.8.8.8", "2001:4860::/32"]);
    expect(["8.8.8.8", "8.8.8.9", "2001:4860::8888", "2001:4861::1"].map((address) => list.blocks(address))).toEqual([
      true,
      false,
      true,
      false,
    ]);
  });

  it("lets everything pass when it is empty", () => {
    expect(createAddressBlocklist([]).blocks("127.0.0.1")).toBe(false);
  });

  it.each(["10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "localhost", "::/129", "10.0.0.0/8/8", "10.0.0.0/-1"])(
    "refuses %s, and says so",
    (range) => {
      expect(() => createAddressBlocklist([range])).toThrow(`"${range}" is not an IP address or a range`);
    },
  );
});
