import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { loadConfig } from "../../../src/main/config.ts";
import { SETTINGS, TEMPORAL_VARIABLES } from "../../../src/main/settings.ts";

interface Service {
  readonly image?: string;
  readonly build?: string;
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly healthcheck?: { readonly test: readonly string[] };
  readonly volumes?: readonly string[];
  readonly ports?: readonly string[];
}

const root = new URL("../../../", import.meta.url);
const text = readFileSync(new URL("docker-compose.yml", root), "utf8");
const compose = parse(text, { merge: true, strict: true, uniqueKeys: true }) as {
  readonly services: Readonly<Record<string, Service>>;
  readonly volumes: Readonly<Record<string, unknown>>;
};
const services = Object.entries(compose.services);
const halves = ["serve", "worker"] as const;

/** What compose would put in for `${NAME}`, `${NAME:-default}` and `${NAME:?message}`. */
function substitute(value: string, env: Readonly<Record<string, string>>): string {
  return value.replaceAll(/\$\{(\w+)(?::([-?])([^}]*))?\}/g, (_all, name: string, mode?: string, rest?: string) => {
    const given = env[name];
    if (given === undefined && mode === "?") {
      throw new Error(`${name} is required: ${rest}`);
    }
    return given ?? (mode === "-" ? (rest ?? "") : "");
  });
}

function environmentOf(name: string, env: Readonly<Record<string, string>>): Record<string, string> {
  const given = Object.entries(compose.services[name]?.environment ?? {});
  return Object.fromEntries(given.map(([key, value]) => [key, substitute(value, env)]));
}

describe("docker-compose.yml", () => {
  it("has PostgreSQL, Temporal, its UI and both halves of the sidecar", () => {
    expect(services.map(([name]) => name).toSorted()).toEqual([
      "postgres",
      "serve",
      "temporal",
      "temporal-ui",
      "worker",
    ]);
    expect(compose.services["serve"]?.command).toEqual(["serve"]);
    expect(compose.services["worker"]?.command).toEqual(["worker"]);
  });

  it("pins a version of every image that is not built here", () => {
    for (const [name, { image, build }] of services) {
      expect(build !== undefined || /:[0-9][0-9.]*$/.test(image ?? ""), name).toBe(true);
    }
  });

  it("waits only for services that exist and say when they are healthy", () => {
    for (const [name, { depends_on: needs = {} }] of services) {
      for (const [needed, { condition }] of Object.entries(needs)) {
        expect(condition, `${name} needs ${needed}`).toBe("service_healthy");
        expect(compose.services[needed]?.healthcheck?.test, `${needed} says when it is healthy`).toBeDefined();
      }
    }
    for (const half of halves) {
      expect(Object.keys(compose.services[half]?.depends_on ?? {}).toSorted()).toEqual(["postgres", "temporal"]);
    }
  });

  it("sets only variables that the sidecar knows", () => {
    const known = new Set([...Object.values(SETTINGS), ...TEMPORAL_VARIABLES].map(({ variable }) => variable));
    for (const half of halves) {
      const given = Object.keys(compose.services[half]?.environment ?? {});
      expect(given.filter((name) => !known.has(name))).toEqual([]);
    }
  });

  it("gives both halves settings that they accept, the same ones, and the services' addresses", () => {
    const env = { POSTGRES_PASSWORD: "password" };
    expect(environmentOf("serve", env)).toEqual(environmentOf("worker", env));
    const config = loadConfig(environmentOf("serve", env));
    expect(config.unknownVariables).toEqual([]);
    expect(new URL(config.databaseUrl ?? "").hostname).toBe("postgres");
    expect(config.temporal.address).toBe("temporal:7233");
    expect(
      loadConfig(environmentOf("serve", { ...env, FASTJOIN_SERVER_NAME: "a.org", FASTJOIN_FEDERATION_TLS: "off" })),
    ).toMatchObject({ serverName: "a.org", federationTls: { kind: "off" } });
  });

  it("does not start without a password for PostgreSQL", () => {
    expect(() => environmentOf("serve", {})).toThrow(/POSTGRES_PASSWORD is required/);
    expect(() => environmentOf("postgres", {})).toThrow(/POSTGRES_PASSWORD is required/);
  });

  it("uses the credentials that PostgreSQL is made with", () => {
    const env = { POSTGRES_PASSWORD: "password" };
    const postgres = environmentOf("postgres", env);
    const url = new URL(environmentOf("serve", env)["DATABASE_URL"] ?? "");
    expect([url.username, url.password, url.pathname]).toEqual([
      postgres["POSTGRES_USER"],
      postgres["POSTGRES_PASSWORD"],
      `/${postgres["POSTGRES_DB"]}`,
    ]);
    expect(environmentOf("temporal", env)).toMatchObject({ POSTGRES_USER: url.username, POSTGRES_PWD: url.password });
  });

  it("keeps the client API, with the operator's, off other machines", () => {
    const published = services.flatMap(([, { ports = [] }]) => ports);
    expect(published.filter((port) => !port.startsWith("127.0.0.1:"))).toEqual(["8448:8448"]);
  });

  it("keeps data in volumes that are declared", () => {
    const named = services.flatMap(([, { volumes = [] }]) => volumes.map((volume) => volume.split(":")[0] ?? ""));
    expect([...new Set(named)].toSorted()).toEqual(Object.keys(compose.volumes).toSorted());
  });
});

describe("Dockerfile", () => {
  const dockerfile = readFileSync(new URL("Dockerfile", root), "utf8");
  const ignored = readFileSync(new URL(".dockerignore", root), "utf8");

  it("copies only what .dockerignore lets through", () => {
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(
      ([, sources]) => sources?.split(" ") ?? [],
    );
    const allowed = [...ignored.matchAll(/^!(.+)$/gm)].map(([, path]) => path);
    expect(copied.length).toBeGreaterThan(5);
    expect(copied.filter((path) => !allowed.includes(path))).toEqual([]);
  });
});
