import { describe, expect, it } from "vitest";
import { createAddressBlocklist, PRIVATE_RANGES } from "../../../src/federation-client/address-blocklist.ts";
import { createConnections } from "../../../src/federation-client/connections.ts";
import type { CallOptions, FederationClientOptions } from "../../../src/federation-client/client.ts";
import type { FederationFailure } from "../../../src/federation-client/failures.ts";
import { fetchWellKnown } from "../../../src/federation-client/fetch-well-known.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aCertificate, aClient, answering, failureOf, startServer } from "./loopback-server.ts";

const database = await openTestDatabase();
const loopback = async () => [{ address: "127.0.0.1", family: 4 }];
const good = answering({ pdus: [{}] });

/** Where a name is found, in place of the world's DNS. */
function found(wellKnown: string | undefined, srvPort?: number): NonNullable<FederationClientOptions["discovery"]> {
  const records = srvPort === undefined ? [] : [{ name: "srv.example", port: srvPort, priority: 0, weight: 0 }];
  return { wellKnown: async () => wellKnown, srvRecords: async () => records };
}

describe("the blocklist", () => {
  const blocked = { ipBlocklist: PRIVATE_RANGES } as const;

  it.each([
    ["an address", (port: number) => `127.0.0.1:${port}`],
    ["an IPv6 address", (port: number) => `[::1]:${port}`],
    ["an IPv4 address inside an IPv6 one", (port: number) => `[::ffff:127.0.0.1]:${port}`],
    ["an address in an old spelling", (port: number) => `127.1:${port}`],
    ["an address as one number", (port: number) => `2130706433:${port}`],
    ["a name that leads there", (port: number) => `innocent.example:${port}`],
  ])("holds for %s", async (_what, nameOf) => {
    const server = await startServer(good);
    const failure = await failureOf(aClient(database, blocked).event(nameOf(server.port), "$a"));
    expect(failure.kind).toBe("unreachable");
    expect(failure.reason).toContain("on the blocklist");
    expect(server.seen).toEqual([]);
  });

  it("holds for what a delegation or an SRV record leads to", async () => {
    const server = await startServer(good);
    for (const discovery of [found(`127.0.0.1:${server.port}`), found(undefined, server.port)]) {
      const client = aClient(database, { ...blocked, discovery });
      const failure = await failureOf(client.event("innocent.example", "$a", { ignoreBackOff: true }));
      expect(failure.reason).toContain("on the blocklist");
    }
    expect(server.seen).toEqual([]);
  });

  it("takes those addresses of a name that are not on it", async () => {
    const server = await startServer(good);
    const client = aClient(database, {
      ipBlocklist: ["10.0.0.0/8"],
      lookup: async () => [
        { address: "10.0.0.1", family: 4 },
        { address: "127.0.0.1", family: 4 },
      ],
    });
    await client.event(`two.example:${server.port}`, "$a");
    expect(server.seen).toHaveLength(1);
  });

  it("is asked about the very addresses that are connected to, whatever the next answer of the DNS", async () => {
    const server = await startServer(good);
    let answers = 0;
    const client = aClient(database, {
      ipBlocklist: ["127.0.0.0/8"],
      lookup: async () => [{ address: answers++ === 0 ? "192.0.2.1" : "127.0.0.1", family: 4 }],
    });
    const ask = (options: CallOptions): Promise<FederationFailure> =>
      failureOf(client.event(`rebinding.example:${server.port}`, "$a", { ignoreBackOff: true, ...options }));
    // Nobody is at the first address.
    await ask({ timeoutMs: 300 });
    const failure = await ask({});
    expect(failure.reason).toContain("on the blocklist");
    expect(server.seen).toEqual([]);
  });
});

describe("certificates", () => {
  it("must be trusted", async () => {
    const server = await startServer(good, await aCertificate(["x.example"]));
    const client = aClient(database, { verifyCertificates: true });
    const failure = await failureOf(client.event(`x.example:${server.port}`, "$a"));
    expect(failure.kind).toBe("unreachable");
    expect(failure.reason).toContain("its certificate is refused: self-signed certificate");
  });

  it("may come from an authority of the operator's", async () => {
    const authority = await aCertificate(["authority.example"]);
    const server = await startServer(good, await aCertificate(["x.example"], authority));
    const client = aClient(database, { verifyCertificates: true, extraAuthorities: authority.cert });
    expect(await client.event(`x.example:${server.port}`, "$a")).toEqual({});
  });

  it("must carry the delegated name, which is also the Host header and what the handshake asks for", async () => {
    const authority = await aCertificate(["authority.example"]);
    const server = await startServer(good, await aCertificate(["y.example"], authority));
    const client = aClient(database, {
      verifyCertificates: true,
      extraAuthorities: authority.cert,
      discovery: found(`y.example:${server.port}`),
    });
    await client.event("x.example", "$a");
    expect(server.seen[0]).toMatchObject({ headers: { host: `y.example:${server.port}` }, sni: "y.example" });
  });

  it("must carry the name in front of an SRV record, never its target", async () => {
    const authority = await aCertificate(["authority.example"]);
    const options = { verifyCertificates: true, extraAuthorities: authority.cert };
    const right = await startServer(good, await aCertificate(["x.example"], authority));
    await aClient(database, { ...options, discovery: found(undefined, right.port) }).event("x.example", "$a");
    expect(right.seen[0]).toMatchObject({ headers: { host: "x.example" }, sni: "x.example" });
    const wrong = await startServer(good, await aCertificate(["srv.example"], authority));
    const client = aClient(database, { ...options, discovery: found(undefined, wrong.port) });
    expect((await failureOf(client.event("x.example", "$a"))).reason).toContain("its certificate is refused");
    expect(wrong.seen).toEqual([]);
  });

  it("go unchecked only if the operator says so", async () => {
    const server = await startServer(good, await aCertificate(["other.example"]));
    expect(await aClient(database).event(`x.example:${server.port}`, "$a")).toEqual({});
  });
});

describe("several SRV targets", () => {
  it("are tried in their order until one can be reached", async () => {
    const server = await startServer(good);
    const discovery = {
      wellKnown: async () => undefined,
      srvRecords: async () => [
        { name: "dead.example", port: 1, priority: 1, weight: 0 },
        { name: "alive.example", port: server.port, priority: 2, weight: 0 },
      ],
    };
    expect(await aClient(database, { discovery }).event("several.example", "$a")).toEqual({});
  });
});

describe("fetchWellKnown", () => {
  const connect = (ranges: readonly string[] = []) =>
    createConnections({ blocklist: createAddressBlocklist(ranges), verifyCertificates: false, lookup: loopback });

  it("follows redirects, and gives what the cache needs to know", async () => {
    const target = await startServer((_request, response) => {
      response.writeHead(200, { "cache-control": "max-age=60", expires: "never" });
      response.end('{"m.server":"y.example"}');
    });
    const first = await startServer((_request, response) => {
      response.writeHead(302, { location: `https://elsewhere.example:${target.port}/there?x=1` });
      response.end();
    });
    const connections = connect();
    expect(await fetchWellKnown(connections, new URL(`https://x.example:${first.port}/`))).toEqual({
      status: 200,
      cacheControl: "max-age=60",
      expires: "never",
      body: '{"m.server":"y.example"}',
    });
    expect(target.seen[0]).toMatchObject({ url: "/there?x=1", headers: { host: `elsewhere.example:${target.port}` } });
    await connections.close();
  });

  it.each([
    ["in a circle", (port: number) => `https://x.example:${port}/`, "more than 5 times"],
    ["to plain HTTP", (port: number) => `http://x.example:${port}/`, "redirects to http:"],
    ["to a blocked address", () => "https://10.0.0.1/", "the address 10.0.0.1 is on the blocklist"],
  ])("follows no redirect %s", async (_what, locationOf, message) => {
    const server = await startServer((_request, response) => {
      response.writeHead(302, { location: locationOf(server.port) });
      response.end();
    });
    const connections = connect(["10.0.0.0/8"]);
    await expect(fetchWellKnown(connections, new URL(`https://x.example:${server.port}/`))).rejects.toThrow(message);
    await connections.close();
  });

  it("takes no file that is larger than any could have to be", async () => {
    const server = await startServer((_request, response) => void response.end(" ".repeat(60_000)));
    const connections = connect();
    const url = new URL(`https://x.example:${server.port}/`);
    await expect(fetchWellKnown(connections, url)).rejects.toThrow("larger than 51200 bytes");
    await connections.close();
  });
});
