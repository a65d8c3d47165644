import { describe, expect, it } from "vitest";
import { discoverServer } from "../../../src/federation-client/discovery.ts";
import type { DiscoverySources, SrvRecord } from "../../../src/federation-client/discovery.ts";

interface World {
  readonly wellKnown?: Readonly<Record<string, string>>;
  readonly srv?: Readonly<Record<string, readonly SrvRecord[]>>;
  readonly random?: number;
}

/** A little internet, and the list of what was asked of it. */
function aWorld(world: World = {}): { readonly sources: DiscoverySources; readonly asked: string[] } {
  const asked: string[] = [];
  const sources: DiscoverySources = {
    wellKnown: async (hostname) => {
      asked.push(`well-known ${hostname}`);
      return world.wellKnown?.[hostname];
    },
    srvRecords: async (name) => {
      asked.push(`SRV ${name}`);
      return world.srv?.[name] ?? [];
    },
    random: () => world.random ?? 0,
  };
  return { sources, asked };
}

function srv(name: string, port: number, priority = 10, weight = 0): SrvRecord {
  return { name, port, priority, weight };
}

function at(host: string, port: number, hostHeader: string, certificateName: string) {
  return { host, port, hostHeader, certificateName };
}

describe("discoverServer", () => {
  it.each([
    ["1.2.3.4", at("1.2.3.4", 8448, "1.2.3.4", "1.2.3.4")],
    ["1.2.3.4:80", at("1.2.3.4", 80, "1.2.3.4:80", "1.2.3.4")],
    ["[2001:db8::1]", at("2001:db8::1", 8448, "[2001:db8::1]", "2001:db8::1")],
    ["[2001:db8::1]:80", at("2001:db8::1", 80, "[2001:db8::1]:80", "2001:db8::1")],
    ["x.example:80", at("x.example", 80, "x.example:80", "x.example")],
  ])("goes straight to %s", async (name, address) => {
    const { sources, asked } = aWorld({ wellKnown: { "x.example": "trap.example:1" } });
    expect(await discoverServer(name, sources)).toEqual([address]);
    expect(asked).toEqual([]);
  });

  it.each([
    ["9.9.9.9", at("9.9.9.9", 8448, "9.9.9.9", "9.9.9.9")],
    ["[::9]:81", at("::9", 81, "[::9]:81", "::9")],
    ["y.example:81", at("y.example", 81, "y.example:81", "y.example")],
  ])("follows a delegation to %s", async (delegate, address) => {
    const { sources, asked } = aWorld({ wellKnown: { "x.example": delegate } });
    expect(await discoverServer("x.example", sources)).toEqual([address]);
    expect(asked).toEqual(["well-known x.example"]);
  });

  it("asks for the SRV records of a delegated name, and speaks to it by that name", async () => {
    const { sources, asked } = aWorld({
      wellKnown: { "x.example": "y.example" },
      srv: { "_matrix-fed._tcp.y.example": [srv("host.example", 443)] },
    });
    expect(await discoverServer("x.example", sources)).toEqual([at("host.example", 443, "y.example", "y.example")]);
    expect(asked).toEqual(["well-known x.example", "SRV _matrix-fed._tcp.y.example"]);
  });

  it("falls back to the old SRV name, then to port 8448 of the delegated name", async () => {
    const old = aWorld({
      wellKnown: { "x.example": "y.example" },
      srv: { "_matrix._tcp.y.example": [srv("host.example", 443)] },
    });
    expect(await discoverServer("x.example", old.sources)).toEqual([at("host.example", 443, "y.example", "y.example")]);
    const none = aWorld({ wellKnown: { "x.example": "y.example" } });
    expect(await discoverServer("x.example", none.sources)).toEqual([at("y.example", 8448, "y.example", "y.example")]);
    expect(none.asked).toEqual([
      "well-known x.example",
      "SRV _matrix-fed._tcp.y.example",
      "SRV _matrix._tcp.y.example",
    ]);
  });

  it("does the same with the name itself where there is no delegation", async () => {
    const { sources, asked } = aWorld({ srv: { "_matrix._tcp.x.example": [srv("host.example", 443)] } });
    expect(await discoverServer("x.example", sources)).toEqual([at("host.example", 443, "x.example", "x.example")]);
    expect(asked).toEqual(["well-known x.example", "SRV _matrix-fed._tcp.x.example", "SRV _matrix._tcp.x.example"]);
    expect(await discoverServer("z.example", aWorld().sources)).toEqual([
      at("z.example", 8448, "z.example", "z.example"),
    ]);
  });

  it("follows no second delegation, and none to something that is no server name", async () => {
    const { sources } = aWorld({ wellKnown: { "x.example": "y.example", "y.example": "z.example:1" } });
    expect(await discoverServer("x.example", sources)).toEqual([at("y.example", 8448, "y.example", "y.example")]);
    const bad = aWorld({ wellKnown: { "x.example": "https://y.example/" } });
    expect(await discoverServer("x.example", bad.sources)).toEqual([at("x.example", 8448, "x.example", "x.example")]);
  });

  it("orders SRV targets by priority, and by weight within one", async () => {
    const records = [srv("late", 1, 20, 5), srv("light", 2, 10, 10), srv("heavy", 3, 10, 90), srv("none", 4, 10, 0)];
    const order = async (random: number): Promise<readonly string[]> => {
      const { sources } = aWorld({ srv: { "_matrix-fed._tcp.x.example": records }, random });
      return (await discoverServer("x.example", sources)).map(({ host }) => host);
    };
    expect(await order(0.05)).toEqual(["light", "heavy", "none", "late"]);
    expect(await order(0.99)).toEqual(["heavy", "light", "none", "late"]);
  });

  it("finds no address where the only SRV target says that the service is not offered", async () => {
    const { sources } = aWorld({ srv: { "_matrix-fed._tcp.x.example": [srv(".", 0)] } });
    expect(await discoverServer("x.example", sources)).toEqual([]);
  });
});
