import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { stringify } from "yaml";
import type { ApplicationService } from "../../../src/appservice-client/registration.ts";
import { ConfigError } from "../../../src/main/config.ts";
import { loadApplicationServices } from "../../../src/main/load-application-services.ts";

let folder: string;
let files = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fastjoin-registrations-"));
});
afterAll(() => rm(folder, { recursive: true }));

const bridge = {
  id: "irc",
  url: "http://127.0.0.1:1234/",
  as_token: "as-secret",
  hs_token: "hs-secret",
  sender_localpart: "_irc_bot",
  namespaces: { users: [{ exclusive: true, regex: "@_irc_.*" }] },
};

async function aFile(content: unknown): Promise<string> {
  files += 1;
  const path = join(folder, `${files}.yaml`);
  await writeFile(path, typeof content === "string" ? content : stringify(content));
  return path;
}

async function load(...contents: readonly unknown[]): Promise<readonly ApplicationService[]> {
  const paths = [];
  for (const content of contents) paths.push(await aFile(content));
  return loadApplicationServices({ applicationServices: paths });
}

/** The refusal with each path as `FILE`, numbered where there are several. */
async function refusal(...contents: readonly unknown[]): Promise<string> {
  const first = files;
  try {
    await load(...contents);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return contents.reduce<string>(
      (text, _content, index) => text.replaceAll(join(folder, `${first + index + 1}.yaml`), `FILE${index + 1}`),
      error.message,
    );
  }
  return "accepted";
}

describe("loadApplicationServices", () => {
  it("reads a registration as bridges write it", async () => {
    const [service] = await load(`
      id: "IRC Bridge"
      url: http://127.0.0.1:1234/
      as_token: "30c05ae9"
      hs_token: "312df522"
      sender_localpart: SuHzTqUBoTx
      rate_limited: false
      receive_ephemeral: true
      de.sorunome.msc2409.push_ephemeral: true
      protocols: ["irc"]
      namespaces:
        users:
          - exclusive: true
            regex: ^@_irc_.*:example\\.org$
            group_id: "+irc:example.org"
        aliases:
          - {exclusive: false, regex: "#_irc_.*"}
    `);
    expect(service).toMatchObject({
      id: "IRC Bridge",
      url: "http://127.0.0.1:1234",
      asToken: "30c05ae9",
      hsToken: "312df522",
      senderLocalpart: "SuHzTqUBoTx",
      receiveEphemeral: true,
      namespaces: { users: [{ exclusive: true }], aliases: [{ exclusive: false }], rooms: [] },
    });
    const pattern = service?.namespaces.users[0]?.pattern;
    const names = ["@_irc_someone:example.org", "@_irc_someone:example.org.evil", "@someone:example.org"];
    expect(names.map((name) => pattern?.test(name))).toEqual([true, false, false]);
  });

  it("takes a url of null for a service that nothing is sent to", async () => {
    expect((await load({ ...bridge, url: null }))[0]?.url).toBeNull();
  });

  it("reads several files", async () => {
    const second = { ...bridge, id: "xmpp", as_token: "other", sender_localpart: "_xmpp_bot" };
    expect((await load(bridge, second)).map(({ id }) => id)).toEqual(["irc", "xmpp"]);
  });

  it.each<[string, unknown, string]>([
    ["id", { id: undefined }, "FILE1: id is missing; allowed: a text that no other registration has"],
    ["id", { id: 7 }, "FILE1: id holds 7; allowed: a text that no other registration has"],
    ["url", { url: "irc:6667" }, 'FILE1: url holds "irc:6667"; allowed: an http or https URL'],
    ["url", { url: undefined }, "FILE1: url is missing; allowed: an http or https URL without a query, or null"],
    ["as_token", { as_token: "two words" }, "FILE1: as_token holds a value that is not shown here; allowed: a text"],
    ["hs_token", { hs_token: undefined }, "FILE1: hs_token is missing; allowed: a text without spaces"],
    ["sender_localpart", { sender_localpart: "a:b" }, 'FILE1: sender_localpart holds "a:b"; allowed: the local part'],
    ["namespaces", { namespaces: undefined }, "FILE1: namespaces is missing; allowed: a mapping with any of users"],
    ["rate_limited", { rate_limited: "maybe" }, 'FILE1: rate_limited holds "maybe"; allowed: true or false'],
    [
      "namespaces.users.0.exclusive",
      { namespaces: { users: [{ exclusive: "yes", regex: "@.*" }] } },
      'FILE1: namespaces.users.0.exclusive holds "yes"; allowed: true or false',
    ],
    [
      "namespaces.rooms.0.regex",
      { namespaces: { rooms: [{ exclusive: true, regex: "(" }] } },
      'FILE1: namespaces.rooms.0.regex holds "(", which can\'t be used (Invalid regular expression',
    ],
    [
      "namespaces.aliases",
      { namespaces: { aliases: "#_irc_.*" } },
      'FILE1: namespaces.aliases holds "#_irc_.*"; allowed: a list of {exclusive, regex}',
    ],
  ])("refuses a bad %s, and says what is allowed", async (_field, changes, message) => {
    const text = await refusal({ ...bridge, ...(changes as object) });
    expect(text).toContain(message);
    expect(text).not.toMatch(/two words|as-secret/);
  });

  it("refuses what is no registration at all", async () => {
    expect(await refusal("- just\n- a list")).toContain(
      'FILE1: the file holds ["just","a list"]; allowed: a YAML mapping',
    );
    expect(await refusal("a: [")).toMatch(/FASTJOIN_APPLICATION_SERVICES names FILE1, which can't be read as YAML \(/);
    await expect(loadApplicationServices({ applicationServices: [join(folder, "none.yaml")] })).rejects.toThrow(
      /FASTJOIN_APPLICATION_SERVICES names .*none\.yaml, .*ENOENT/,
    );
  });

  it("tells of all that is wrong at once", async () => {
    expect((await refusal({ ...bridge, id: 7, url: 8 })).split("\n").length).toBe(2);
  });

  it.each([
    ["id", { as_token: "other", sender_localpart: "other" }, 'FILE2: id holds "irc", as FILE1 does'],
    [
      "as_token",
      { id: "other", sender_localpart: "other" },
      "FILE2: as_token holds a value that is not shown here, as FILE1",
    ],
    ["sender_localpart", { id: "other", as_token: "other" }, 'FILE2: sender_localpart holds "_irc_bot", as FILE1 does'],
  ])("refuses the same %s in two files", async (_field, changes, message) => {
    expect(await refusal(bridge, { ...bridge, ...changes })).toContain(message);
  });
});
