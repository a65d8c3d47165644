/**
 * Makes the fixtures of this directory anew: lets two real Synapses play the same room in every version that they can
 * create, and writes down the events as the first of them stored them.
 *
 *   npx tsx test/conformance/synapse-events/generate.ts
 */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { isJsonObject, parseJson, stringifyJson } from "../../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../../src/matrix/json.ts";
import { prevEventIds } from "../../../src/matrix/event.ts";
import type { Pdu } from "../../../src/matrix/event.ts";
import { ROOM_VERSIONS } from "../../../src/matrix/room-versions.ts";
import { signingKeyFromSeed } from "../../../src/matrix/signatures.ts";
import { startSynapse } from "../../support/synapse/start-synapse.ts";
import type { Synapse } from "../../support/synapse/start-synapse.ts";
import { callAs, registerUser } from "../../support/synapse/synapse-client.ts";
import { rulesFor } from "../../support/a-pdu.ts";
import { playRoom } from "./scenario.ts";
import type { Cast } from "./scenario.ts";

const run = promisify(execFile);

async function publicKeysOf(synapse: Synapse): Promise<JsonObject> {
  const [algorithm, version, seed] = (await readFile(join(synapse.dataDir, "signing.key"), "utf8")).trim().split(" ");
  const key = signingKeyFromSeed(`${algorithm}:${version}`, Buffer.from(seed ?? "", "base64"));
  return { [key.keyId]: Buffer.from(key.publicKey).toString("base64").replace("=", "") };
}

interface StoredEvent {
  readonly eventId: string;
  readonly pdu: JsonObject;
}

async function eventsOf(synapse: Synapse, roomId: string): Promise<readonly StoredEvent[]> {
  const script = join(import.meta.dirname, "read-events.py");
  const { stdout } = await run("python3", [script, join(synapse.dataDir, "homeserver.db"), roomId]);
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => {
      const [eventId = "", text = ""] = line.split("\t");
      const pdu = parseJson(text);
      if (!isJsonObject(pdu)) throw new Error(`${eventId} is not stored as an object`);
      return { eventId, pdu: { ...pdu, unsigned: undefined } };
    });
}

/** The conformance test takes the state before an event from the events above it. */
function assertLinear(events: readonly StoredEvent[]): void {
  for (const [index, { eventId, pdu }] of events.entries()) {
    const expected = events.slice(Math.max(index - 1, 0), index).map((previous) => previous.eventId);
    if (prevEventIds(pdu as Pdu).join() !== expected.join()) {
      throw new Error(`${eventId} does not follow on the event before it: run the script again`);
    }
  }
}

async function castOn(home: Synapse, other: Synapse): Promise<Cast> {
  const [alice, bob, carol, dave] = [
    await registerUser(home, "alice"),
    await registerUser(home, "bob"),
    await registerUser(home, "carol"),
    await registerUser(home, "dave"),
  ];
  const [erin, frank, grace] = [
    await registerUser(other, "erin"),
    await registerUser(other, "frank"),
    await registerUser(other, "grace"),
  ];
  return { alice, bob, carol, dave, erin, frank, grace };
}

function fixtureText(version: string, keys: JsonObject, events: readonly StoredEvent[]): string {
  const lines = events.map(({ eventId, pdu }) => stringifyJson({ event_id: eventId, pdu } as JsonValue as JsonObject));
  return `{"room_version":"${version}","keys":${stringifyJson(keys)},"events":[\n${lines.join(",\n")}\n]}\n`;
}

async function generate(directory: string): Promise<void> {
  const home = await startSynapse({ dataDir: join(directory, "home") });
  const other = await startSynapse({ dataDir: join(directory, "other") });
  try {
    const cast = await castOn(home, other);
    const capabilities = stringifyJson(await callAs(cast.alice, "GET", "/capabilities"));
    const keys = { [home.serverName]: await publicKeysOf(home), [other.serverName]: await publicKeysOf(other) };
    for (const version of ROOM_VERSIONS) {
      if (!capabilities.includes(`"${version}":"stable"`)) throw new Error(`no rooms of version ${version}`);
      const events = await eventsOf(home, await playRoom(cast, rulesFor(version)));
      assertLinear(events);
      const path = join(import.meta.dirname, `room-version-${version}.json`);
      await writeFile(path, fixtureText(version, keys, events));
      process.stdout.write(`room version ${version}: ${events.length} events\n`);
    }
  } finally {
    await Promise.all([home.stop(), other.stop()]);
  }
}

const directory = await mkdtemp(join(tmpdir(), "synapse-events-"));
try {
  await generate(directory);
} finally {
  await rm(directory, { recursive: true });
}
