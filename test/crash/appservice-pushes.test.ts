import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { acknowledge, startServiceReceiver, type SeenByService } from "../support/application-service.ts";
import { cloneDatabase } from "../support/database.ts";
import type { Body } from "../support/loopback-client.ts";
import { eventually, sidecarSettings, spawnFastjoin, type SidecarProcess } from "../support/sidecar-process.ts";

const database = await cloneDatabase();
const receiver = await startServiceReceiver();
const settings = await sidecarSettings({
  DATABASE_URL: database.url,
  // Nobody answers there: nothing of this needs workflows.
  TEMPORAL_ADDRESS: "127.0.0.1:1",
  FASTJOIN_REGISTRATION: "open",
});
const file = join(settings.dataDir, "bridge.yaml");
await writeFile(
  file,
  stringify({
    id: "bridge",
    url: receiver.url,
    as_token: "as-token",
    hs_token: "hs-token",
    sender_localpart: "_bridge_bot",
    namespaces: { rooms: [{ exclusive: false, regex: "!" }] },
  }),
);

const processes: SidecarProcess[] = [];
afterAll(async () => {
  for (const { child, finished } of processes) {
    child.kill("SIGKILL");
    await finished;
  }
  await settings.remove();
  await database.drop();
});

interface Serve {
  readonly url: string;
  kill(): Promise<void>;
}

async function startServe(): Promise<Serve> {
  const serve = spawnFastjoin({ ...settings.env, FASTJOIN_APPLICATION_SERVICES: file }, "serve");
  processes.push(serve);
  const url = await eventually(() => /"clientUrl":"([^"]+)"/.exec(serve.output())?.[1], { about: serve.output });
  const kill = async (): Promise<void> => {
    serve.child.kill("SIGKILL");
    await serve.finished;
  };
  return { url, kill };
}

async function call(serve: Serve, method: string, path: string, body: object): Promise<Body> {
  const response = await fetch(`${serve.url}/_matrix/client/v3/${path}`, {
    method,
    headers: { authorization: "Bearer as-token" },
    body: JSON.stringify(body),
  });
  const answer: unknown = await response.json();
  if (!response.ok) throw new Error(JSON.stringify(answer));
  return answer;
}

function say(serve: Serve, roomId: string, text: string): Promise<Body> {
  const content = { msgtype: "m.text", body: text };
  return call(serve, "PUT", `rooms/${encodeURIComponent(roomId)}/send/m.room.message/${text}`, content);
}

function textsOf({ body }: SeenByService): readonly string[] {
  return body.events.flatMap((event: Body) => event.content.body ?? []);
}

describe("a transaction to an application service", () => {
  it("is repeated by another process when the one that began it is killed, and nothing is lost or sent twice", async () => {
    const first = await startServe();
    const { room_id: roomId } = await call(first, "POST", "createRoom", {});
    await eventually(() => (receiver.events().some(({ type }) => type === "m.room.create") ? true : undefined));
    const before = receiver.transactions().length;
    receiver.handler = () => undefined;
    await say(first, roomId, "begun");
    await expect
      .poll(() =>
        receiver
          .transactions()
          .slice(before)
          .some((one) => textsOf(one).includes("begun")),
      )
      .toBe(true);

    const second = await startServe();
    await say(second, roomId, "meanwhile");
    receiver.handler = acknowledge;
    await first.kill();
    await say(second, roomId, "after");

    await expect.poll(() => receiver.transactions().flatMap(textsOf).includes("after")).toBe(true);
    const sent = receiver.transactions().filter((one) => textsOf(one).length > 0);
    const [begun, repeated, ...others] = sent;
    expect(repeated?.path).toBe(begun?.path);
    expect(repeated?.text).toBe(begun?.text);
    expect(others.flatMap(textsOf)).toEqual(["meanwhile", "after"]);
  });
});
