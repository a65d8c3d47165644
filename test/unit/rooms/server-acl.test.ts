import { describe, expect, it } from "vitest";
import { serverAllowedByAcl } from "../../../src/rooms/events/server-acl.ts";

const open = { allow: ["*"] };

describe("serverAllowedByAcl", () => {
  it("denies everybody where nothing is allowed", () => {
    expect(serverAllowedByAcl({}, "a.example")).toBe(false);
    expect(serverAllowedByAcl({ deny: [] }, "a.example")).toBe(false);
    expect(serverAllowedByAcl({ allow: "*" }, "a.example")).toBe(false);
  });

  it("lets deny win over allow", () => {
    const acl = { ...open, deny: ["evil.example"] };
    expect(serverAllowedByAcl(acl, "evil.example")).toBe(false);
    expect(serverAllowedByAcl(acl, "good.example")).toBe(true);
  });

  it.each([
    ["*.evil.example", "a.evil.example", true],
    ["*.evil.example", "a.b.evil.example", true],
    ["*.evil.example", "evil.example", false],
    ["evil?.example", "evil1.example", true],
    ["evil?.example", "evil.example", false],
    ["evil?.example", "evil12.example", false],
    ["a*b*c", "a-b-b-c", true],
    ["a*b*c", "a-b-b-d", false],
    ["*", "anything", true],
    ["**", "anything", true],
    ["", "anything", false],
    // Everything but the two wildcards stands for itself.
    ["a.c", "abc", false],
    ["[ab].example", "a.example", false],
    ["evil.example", "evil.example.org", false],
    ["evil.example", "not-evil.example", false],
  ])("matches %s against the whole of %s: %s", (glob, server, matches) => {
    expect(serverAllowedByAcl({ ...open, deny: [glob] }, server)).toBe(!matches);
  });

  it("ignores ports, and case", () => {
    expect(serverAllowedByAcl({ ...open, deny: ["evil.example"] }, "evil.example:8448")).toBe(false);
    expect(serverAllowedByAcl({ ...open, deny: ["Evil.example"] }, "eVIL.example")).toBe(false);
    expect(serverAllowedByAcl({ ...open, deny: ["[2001:db8::1]"] }, "[2001:db8::1]:8448")).toBe(false);
  });

  it("refuses IP literals where the room says so, whatever is allowed", () => {
    const acl = { allow: ["*", "1.2.3.4"], allow_ip_literals: false };
    expect(serverAllowedByAcl(acl, "1.2.3.4")).toBe(false);
    expect(serverAllowedByAcl(acl, "1.2.3.4:8448")).toBe(false);
    expect(serverAllowedByAcl(acl, "[::1]")).toBe(false);
    expect(serverAllowedByAcl(acl, "1.2.3.4.example")).toBe(true);
    expect(serverAllowedByAcl({ ...acl, allow_ip_literals: true }, "1.2.3.4")).toBe(true);
    // Only a boolean counts.
    expect(serverAllowedByAcl({ ...acl, allow_ip_literals: "no" }, "1.2.3.4")).toBe(true);
  });

  it("passes over entries that are no strings", () => {
    expect(serverAllowedByAcl({ allow: [null, 3, { a: 1 }, "a.example"], deny: [7] }, "a.example")).toBe(true);
  });

  it("takes a glob made to be slow in its stride", () => {
    const glob = `${"*a".repeat(2_000)}b`;
    expect(serverAllowedByAcl({ ...open, deny: [glob] }, "a".repeat(230))).toBe(true);
  });
});
