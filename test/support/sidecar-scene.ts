import { expect } from "vitest";
import { reservedPort } from "./reserved-port.ts";
import type { EventId } from "../../src/matrix/identifiers.ts";
import type { StateKey } from "../../src/matrix/state.ts";
import type { HostedRoom } from "../resident/hosted-room.ts";
import type { Resident } from "../resident/resident.ts";
import { httpClient, type HttpClient } from "./http-client.ts";
import { eventually, fastjoin, sidecarSettings, type SidecarProcess, type SidecarSettings } from "./sidecar-process.ts";

/** Settings under which a sidecar of a loopback name trusts the resident. */
export async function settingsBeside(
  resident: Resident,
  more: Readonly<Record<string, string>> = {},
): Promise<SidecarSettings> {
  const port = await reservedPort();
  return await sidecarSettings({
    FASTJOIN_SERVER_NAME: `localhost:${port}`,
    FASTJOIN_FEDERATION_LISTEN: `127.0.0.1:${port}`,
    FASTJOIN_FEDERATION_VERIFY_CERTIFICATES: "false",
    FASTJOIN_TRUSTED_KEY_SERVERS: resident.serverName,
    ...more,
  });
}

export async function addAlice(settings: SidecarSettings, clientUrl: string): Promise<HttpClient> {
  return await addUser(settings, clientUrl, "alice");
}

/** An account on the running sidecar, by the command line. */
export async function addUser(settings: SidecarSettings, clientUrl: string, name: string): Promise<HttpClient> {
  const added = await fastjoin(settings.env, "user", "add", name);
  const accessToken = /access token\s+(\S+)/.exec(added.stdout)?.[1];
  if (accessToken === undefined) throw new Error(`no account was made: ${added.stdout}${added.stderr}`);
  return httpClient(clientUrl, `@${name}:${settings.env["FASTJOIN_SERVER_NAME"]}`, accessToken);
}

export async function joinVia(alice: HttpClient, room: HostedRoom, resident: Resident): Promise<void> {
  await alice.post(`join/${encodeURIComponent(room.roomId)}?via=${encodeURIComponent(resident.serverName)}`);
}

export async function untilComplete(
  settings: SidecarSettings,
  room: HostedRoom,
  sidecar: Pick<SidecarProcess, "output">,
): Promise<void> {
  await eventually(
    async () => {
      const { stdout } = await fastjoin(settings.env, "show", room.roomId);
      return stdout.includes("complete: nothing to resync") ? true : undefined;
    },
    { withinMs: 120_000, about: () => `the resync does not end: ${sidecar.output().slice(-4000)}` },
  );
}

export function expectEqualStates(ours: ReadonlyMap<string, string>, theirs: ReadonlyMap<StateKey, EventId>): void {
  expect(ours.size).toBe(theirs.size);
  const different = [...theirs].filter(([key, eventId]) => ours.get(key) !== eventId);
  expect(different).toEqual([]);
}
