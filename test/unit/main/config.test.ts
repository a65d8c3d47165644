import { describe, expect, it } from "vitest";
import {
  ConfigError,
  describeSettings,
  isLoopbackName,
  loadConfig,
  type Environment,
} from "../../../src/main/config.ts";

function refusal(env: Environment): string {
  try {
    loadConfig(env);
  } catch (error) {
    if (error instanceof ConfigError) {
      return error.message;
    }
    throw error;
  }
  return "accepted";
}

describe("loadConfig", () => {
  it("gives the documented defaults to an empty environment", () => {
    const config = loadConfig({});
    expect(config).toMatchObject({
      serverName: "localhost:8448",
      clientListen: { host: "127.0.0.1", port: 8008 },
      federationListen: { host: "127.0.0.1", port: 8448 },
      federationTls: { kind: "self-signed" },
      verifyCertificates: true,
      trustedKeyServers: [],
      defaultRoomVersion: "11",
      registration: { kind: "closed" },
      applicationServices: [],
      operatorToken: undefined,
      fullStateWaitMs: 60_000,
      databaseUrl: undefined,
      temporal: { address: undefined, namespace: "default", taskQueue: "fastjoin-localhost:8448" },
    });
    expect(config.dataDir).toMatch(/\/\.fastjoin$/);
    expect(config.ipBlocklist).toEqual(expect.arrayContaining(["127.0.0.0/8", "10.0.0.0/8", "::1/128", "fc00::/7"]));
  });

  it("reads every setting", () => {
    const config = loadConfig({
      FASTJOIN_SERVER_NAME: "join.example.org",
      FASTJOIN_CLIENT_LISTEN: "[::1]:9000",
      FASTJOIN_FEDERATION_LISTEN: "0.0.0.0:0",
      FASTJOIN_FEDERATION_TLS: "/etc/tls/cert.pem, /etc/tls/key.pem",
      FASTJOIN_FEDERATION_VERIFY_CERTIFICATES: "false",
      FASTJOIN_FEDERATION_CA_FILE: "/etc/tls/ca.pem",
      FASTJOIN_FEDERATION_IP_BLOCKLIST: "10.0.0.0/8, fd00::/8",
      FASTJOIN_TRUSTED_KEY_SERVERS: "matrix.org,keys.example.org:8448",
      FASTJOIN_DEFAULT_ROOM_VERSION: "12",
      FASTJOIN_REGISTRATION: "secret:open sesame",
      FASTJOIN_APPLICATION_SERVICES: "/etc/fastjoin/irc.yaml, /etc/fastjoin/xmpp.yaml",
      FASTJOIN_OPERATOR_TOKEN: "0123456789abcdef",
      FASTJOIN_FULL_STATE_WAIT: "0",
      FASTJOIN_DATA_DIR: "/var/lib/fastjoin",
      FASTJOIN_TEMPORAL_UI: "https://temporal.example.org/",
      DATABASE_URL: "postgresql://me:secret@db/fastjoin",
      TEMPORAL_ADDRESS: "temporal.example.org:7233",
      TEMPORAL_NAMESPACE: "matrix",
      TEMPORAL_API_KEY: "key",
      TEMPORAL_TASK_QUEUE: "queue",
    });
    expect(config).toMatchObject({
      serverName: "join.example.org",
      clientListen: { host: "::1", port: 9000 },
      federationListen: { host: "0.0.0.0", port: 0 },
      federationTls: { kind: "files", certFile: "/etc/tls/cert.pem", keyFile: "/etc/tls/key.pem" },
      verifyCertificates: false,
      caFile: "/etc/tls/ca.pem",
      ipBlocklist: ["10.0.0.0/8", "fd00::/8"],
      trustedKeyServers: ["matrix.org", "keys.example.org:8448"],
      defaultRoomVersion: "12",
      registration: { kind: "secret", secret: "open sesame" },
      applicationServices: ["/etc/fastjoin/irc.yaml", "/etc/fastjoin/xmpp.yaml"],
      operatorToken: "0123456789abcdef",
      fullStateWaitMs: 0,
      dataDir: "/var/lib/fastjoin",
      databaseUrl: "postgresql://me:secret@db/fastjoin",
      temporal: { namespace: "matrix", taskQueue: "queue", uiUrl: "https://temporal.example.org" },
    });
    expect(config.temporal.address).toBe("temporal.example.org:7233");
    expect(config.temporal.connectionOptions).toMatchObject({ address: "temporal.example.org:7233", apiKey: "key" });
  });

  it("lets an empty blocklist allow all addresses", () => {
    expect(loadConfig({ FASTJOIN_FEDERATION_IP_BLOCKLIST: "" }).ipBlocklist).toEqual([]);
  });

  it("takes an empty variable for one that is not set", () => {
    const { serverName, databaseUrl, federationTls } = loadConfig({
      FASTJOIN_SERVER_NAME: "",
      DATABASE_URL: "",
      FASTJOIN_FEDERATION_TLS: "",
    });
    expect({ serverName, databaseUrl, federationTls }).toEqual({
      serverName: "localhost:8448",
      databaseUrl: undefined,
      federationTls: { kind: "self-signed" },
    });
  });

  it.each([
    ["FASTJOIN_SERVER_NAME", "not a name"],
    ["FASTJOIN_CLIENT_LISTEN", "8008"],
    ["FASTJOIN_CLIENT_LISTEN", "127.0.0.1:70000"],
    ["FASTJOIN_FEDERATION_LISTEN", "::1:8448"],
    ["FASTJOIN_FEDERATION_TLS", "on"],
    ["FASTJOIN_FEDERATION_VERIFY_CERTIFICATES", "yes"],
    ["FASTJOIN_FEDERATION_IP_BLOCKLIST", "10.0.0.0/33"],
    ["FASTJOIN_FEDERATION_IP_BLOCKLIST", "localhost"],
    ["FASTJOIN_TRUSTED_KEY_SERVERS", "matrix.org,not a name"],
    ["FASTJOIN_DEFAULT_ROOM_VERSION", "13"],
    ["FASTJOIN_FULL_STATE_WAIT", "-1"],
    ["FASTJOIN_FULL_STATE_WAIT", "1.5"],
    ["FASTJOIN_LOG_LEVEL", "loud"],
    ["FASTJOIN_REGISTRATION", "maybe"],
    ["TEMPORAL_ADDRESS", "not an address"],
    ["TEMPORAL_ADDRESS", "temporal:70000"],
    ["TEMPORAL_TLS", "maybe"],
    ["TEMPORAL_TLS_DISABLE_HOST_VERIFICATION", "maybe"],
  ])("names %s, what it held (%s) and what is allowed", (variable, held) => {
    const message = refusal({ [variable]: held });
    expect(message).toContain(`${variable} holds ${JSON.stringify(held)}; allowed: `);
  });

  it.each([
    ["FASTJOIN_REGISTRATION", "secret-hunter2"],
    ["FASTJOIN_OPERATOR_TOKEN", "hunter2 hunter3"],
    ["DATABASE_URL", "mysql://root:hunter2@db/fastjoin"],
  ])("refuses a wrong %s without showing the secret", (variable, held) => {
    const message = refusal({ [variable]: held });
    expect(message).toContain(variable);
    expect(message).not.toContain("hunter2");
  });

  it.each(["TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_SERVER_CA_CERT_PATH", "TEMPORAL_CONFIG_FILE"])(
    "names %s where its file can't be read",
    (variable) => {
      expect(refusal({ [variable]: "/nope" })).toMatch(
        new RegExp(`^${variable} holds "/nope", which can't be used \\(ENOENT.*\\); allowed: the path of`),
      );
    },
  );

  it.each(["temporal", "temporal:7233", "10.0.0.1:7233", "[::1]:7233", ""])(
    "accepts the Temporal address %j",
    (held) => {
      expect(loadConfig({ TEMPORAL_ADDRESS: held }).temporal.address).toBe(held === "" ? undefined : held);
    },
  );

  it("takes any operator's token without spaces", () => {
    expect(loadConfig({ FASTJOIN_OPERATOR_TOKEN: "x" }).operatorToken).toBe("x");
  });

  it("tells of all wrong settings at once", () => {
    const message = refusal({ FASTJOIN_SERVER_NAME: "a b", FASTJOIN_FULL_STATE_WAIT: "soon" });
    expect(message).toContain("FASTJOIN_SERVER_NAME");
    expect(message).toContain("FASTJOIN_FULL_STATE_WAIT");
  });

  it("wants to be told how a public server name is certified", () => {
    expect(refusal({ FASTJOIN_SERVER_NAME: "example.org" })).toMatch(/FASTJOIN_FEDERATION_TLS is not set, and must be/);
    expect(loadConfig({ FASTJOIN_SERVER_NAME: "example.org", FASTJOIN_FEDERATION_TLS: "off" }).federationTls).toEqual({
      kind: "off",
    });
  });

  it("names variables that begin like ours and mean nothing", () => {
    expect(loadConfig({ FASTJOIN_SEVER_NAME: "x" }).unknownVariables).toEqual(["FASTJOIN_SEVER_NAME"]);
  });
});

describe("isLoopbackName", () => {
  it.each(["localhost", "localhost:8448", "a.localhost", "127.0.0.1:1", "127.1.2.3", "[::1]", "[::1]:8448"])(
    "holds of %s",
    (name) => {
      expect(isLoopbackName(name)).toBe(true);
    },
  );

  it.each(["example.org", "localhost.example.org", "10.0.0.1", "[::2]:8448", "127.example.org"])(
    "does not hold of %s",
    (name) => {
      expect(isLoopbackName(name)).toBe(false);
    },
  );
});

describe("describeSettings", () => {
  it("prints what is set and what holds where nothing is", () => {
    const text = describeSettings({ FASTJOIN_SERVER_NAME: "example.org", TEMPORAL_NAMESPACE: "matrix" });
    expect(text).toContain("FASTJOIN_SERVER_NAME = example.org\n");
    expect(text).toContain("TEMPORAL_NAMESPACE = matrix\n");
    expect(text).toContain("FASTJOIN_FULL_STATE_WAIT = not set (60)\n");
    expect(describeSettings({ FASTJOIN_REGISTRATION: "open" })).toContain("FASTJOIN_REGISTRATION = open\n");
  });

  it("masks secrets", () => {
    const secrets = {
      FASTJOIN_OPERATOR_TOKEN: "hunter2hunter2hunter2",
      FASTJOIN_REGISTRATION: "secret:hunter2",
      DATABASE_URL: "postgresql://me:hunter2@db/fastjoin",
      TEMPORAL_API_KEY: "hunter2",
      TEMPORAL_TLS_CLIENT_KEY_DATA: "hunter2",
    };
    const text = describeSettings(secrets);
    for (const variable of Object.keys(secrets)) {
      expect(text).toContain(`${variable} = set, not shown\n`);
    }
    expect(text).not.toContain("hunter2");
  });
});
