import type { UserId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { crossSigningKeyOf, deviceKeysOf, oneTimeKeys } from "../../support/device-keys.ts";
import type { Deed } from "./deeds.ts";
import type { Stage } from "./stage.ts";
import { enter, insist, newRoom, rowsOf, tell, theySay, until, untilWhole, weSay } from "./stage.ts";

async function wholeRoom(stage: Stage): Promise<HostedRoom> {
  const room = newRoom(stage);
  await enter(stage, room);
  await untilWhole(stage, room);
  return room;
}

const edu = (type: string, content: JsonObject): JsonObject => ({ edu_type: type, content });

const MINUTE = 60_000;

const showPresence: Deed = {
  name: "type, read, be present, and see others do so",
  run: async (stage) => {
    const { alice, lane, resident } = stage;
    const room = await wholeRoom(stage);
    const inRoom = `rooms/${encodeURIComponent(room.roomId)}`;
    const me = encodeURIComponent(alice.userId);
    const { user } = resident.front;
    const read = await theySay(stage, room, "theirs");
    const events = { event_ids: [read], data: { ts: Date.now() } };
    await tell(stage, {
      edus: [
        edu("m.typing", { room_id: room.roomId, user_id: user, typing: true }),
        edu("m.receipt", { [room.roomId]: { "m.read": { [user]: events } } }),
        edu("m.presence", { push: [{ user_id: user, presence: "online", last_active_ago: 10 }] }),
      ],
    });
    await insist("typing", () => alice.put(`${inRoom}/typing/${me}`, { typing: true, timeout: 1_000 }));
    await insist("a receipt", () => alice.post(`${inRoom}/receipt/m.read/${encodeURIComponent(read)}`));
    await insist("a read marker", () => alice.post(`${inRoom}/read_markers`, { "m.fully_read": read }));
    await insist("account data", () => alice.put(`user/${me}/account_data/org.example`, { kept: true }));
    await insist("presence", () => alice.put(`presence/${me}/status`, { presence: "online", status_msg: "here" }));
    await lane.shiftClock(40 * MINUTE);
    try {
      await until("nobody types", async () => (await rowsOf(lane, "typing_users", room)) === 0);
      await until("both are away", async () => (await presences(stage, [user, alice.userId])).every(isAway));
    } finally {
      await lane.shiftClock(0);
    }
    const told = (): readonly string[] => typesOf(resident.received.edus.filter(isAbout(alice.userId, room)));
    await until("the resident knows", async () => told().length === 3);
    return {
      receipts: await rowsOf(lane, "receipts", room),
      marker: await insist("the marker", () =>
        alice
          .get<{ event_id: string }>(`user/${me}/${inRoom}/account_data/m.fully_read`)
          .then(({ event_id: id }) => id === read),
      ),
      data: await insist("the data", () => alice.get(`user/${me}/account_data/org.example`)),
      told: told(),
    };
  },
};

const typesOf = (edus: readonly { readonly type: string }[]): readonly string[] =>
  [...new Set(edus.map(({ type }) => type))].toSorted();

const isAway = (presence: string): boolean => presence !== "online";

async function presences({ lane }: Stage, userIds: readonly string[]): Promise<readonly string[]> {
  const { rows } = await lane.database.pool.query<{ presence: string }>(
    "SELECT presence FROM presence WHERE user_id = ANY ($1)",
    [userIds],
  );
  return rows.map(({ presence }) => presence);
}

function isAbout(userId: string, room: HostedRoom): (edu: { readonly content: JsonObject }) => boolean {
  return ({ content }) => {
    const text = JSON.stringify(content);
    return text.includes(userId) || text.includes(room.roomId);
  };
}

const password = { type: "m.login.password", password: "correct horse" };

const keepDevices: Deed = {
  name: "keep devices and their keys, and send to those of others",
  run: async (stage) => {
    const { alice, resident } = stage;
    await wholeRoom(stage);
    const { userId } = alice;
    const { device_id: deviceId } = await insist("who I am", () => alice.get<{ device_id: string }>("account/whoami"));
    const auth = { ...password, identifier: { type: "m.id.user", user: userId } };
    const keys = deviceKeysOf({ userId, deviceId });
    await insist("keys", () => alice.post("keys/upload", { device_keys: keys, one_time_keys: oneTimeKeys("A", "B") }));
    const signing = {
      master_key: crossSigningKeyOf(userId, "master", "M"),
      self_signing_key: crossSigningKeyOf(userId, "self_signing", "S"),
    };
    await insist("signing keys", () => alice.post("keys/device_signing/upload", { ...signing, auth }));
    const signed = { ...keys, signatures: { [userId]: { "ed25519:S": "by self-signing" } } };
    await insist("signatures", () => alice.post("keys/signatures/upload", { [userId]: { [deviceId]: signed } }));
    await insist("a name", () => alice.put(`devices/${deviceId}`, { display_name: "mine" }));
    const friend = await giveDevice(stage);
    const wanted = { [userId]: { [deviceId]: "signed_curve25519" }, [friend]: { FRIEND: "signed_curve25519" } };
    await insist("one-time keys", () => alice.post("keys/claim", { one_time_keys: wanted }));
    const messages = { [userId]: { [deviceId]: { n: 1 } }, [friend]: { FRIEND: { n: 1 } } };
    const txn = crypto.randomUUID();
    await insist("messages", () => alice.put(`sendToDevice/org.example.note/${txn}`, { messages }));
    await tell(stage, { edus: [theirNote(stage, deviceId, friend)] });
    await until("the friend has the message", async () => notesTo(stage).length > 0);
    const told = await insist("to be told", () =>
      alice.get<{ to_device?: { events: readonly { content: { n: number } }[] } }>("sync?timeout=0"),
    );
    const shown = await insist("the keys", () =>
      alice.post<{ device_keys: Record<string, Record<string, unknown>> }>("keys/query", {
        device_keys: { [friend]: [], [userId]: [] },
      }),
    );
    await insist("other devices", () => alice.post("delete_devices", { devices: ["GONE"], auth }));
    return {
      notes: told.to_device?.events.map(({ content }) => content.n).toSorted(),
      sent: notesTo(stage).length,
      devices: Object.values(shown.device_keys).map((devices) => Object.keys(devices).length),
      resident: resident.membership.length,
    };
  },
};

/** The resident's user has a device, and says so; then says something from which it shows that we missed a change. */
async function giveDevice(stage: Stage): Promise<UserId> {
  const { resident } = stage;
  const { user } = resident.front;
  const devices = { FRIEND: deviceKeysOf({ userId: user, deviceId: "FRIEND" }) };
  const times = Array.from({ length: 20 }, (_, index) => oneTimeKeys(`${stage.label}-${index}`));
  const before = resident.world.deviceLists.get(user)?.streamId ?? 1;
  const streamId = before + 3;
  resident.world.deviceLists.set(user, { streamId, devices, oneTimeKeys: { FRIEND: times } });
  for (const [id, previous] of [
    [before + 1, before],
    [streamId, streamId - 1],
  ] as const) {
    const update = { user_id: user, device_id: "FRIEND", stream_id: id, prev_id: [previous] };
    await tell(stage, { edus: [edu("m.device_list_update", { ...update, keys: devices.FRIEND })] });
  }
  return user;
}

function theirNote({ alice }: Stage, deviceId: string, sender: UserId): JsonObject {
  const messages = { [alice.userId]: { [deviceId]: { n: 2 } } };
  return edu("m.direct_to_device", { sender, type: "org.example.note", message_id: crypto.randomUUID(), messages });
}

/** The messages of our user that came to the friend's device, by transaction. */
function notesTo({ alice, resident }: Stage): readonly unknown[] {
  return resident.received.edus.filter(
    ({ type, content }) => type === "m.direct_to_device" && content["sender"] === alice.userId,
  );
}

const tellService: Deed = {
  name: "tell an application service of a message",
  run: async (stage) => {
    const room = await wholeRoom(stage);
    await weSay(stage, room, "ours, for the service");
    await until("the service knows", async () => stage.pushedTo(room.roomId).length > 0);
    return stage.pushedTo(room.roomId);
  },
};

export const DEEDS_OF_USERS: readonly Deed[] = [showPresence, keepDevices, tellService];
