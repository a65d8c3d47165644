import { describe, expect, it } from "vitest";
import type { UserId } from "../../../src/matrix/identifiers.ts";
import { crossSigningKeyOf, deviceKeysOf } from "../../support/device-keys.ts";
import { openDeviceScene } from "../../support/device-scene.ts";

const { resident, database, aUser, enter, tell, fronts } = await openDeviceScene();
const [, second] = fronts;

async function kept(): Promise<readonly string[]> {
  const { rows } = await database.pool.query<{ user_id: string }>(
    "SELECT user_id FROM pending_device_updates WHERE edu_type = 'm.signing_key_update' ORDER BY user_id",
  );
  return rows.map((row) => row.user_id);
}

describe("m.signing_key_update in a partial room", () => {
  it("of a member whose membership we lack is kept, and told after the resync; of a stranger it is dropped then", async () => {
    const alice = await aUser();
    const insider: UserId = `@insider:${second.serverName}`;
    const stranger: UserId = `@stranger:${second.serverName}`;
    const { complete } = await enter(alice, [], async (room) => resident.join(room, insider));
    const { next_batch: since } = await alice.sync();
    for (const userId of [insider, stranger]) {
      await tell(second, "m.signing_key_update", {
        user_id: userId,
        master_key: crossSigningKeyOf(userId, "master", "M1"),
      });
    }
    expect((await alice.sync({ since })).device_lists).toBeUndefined();
    expect(await kept()).toEqual([insider, stranger]);

    await complete();

    const { changed } = (await alice.sync({ since })).device_lists;
    expect(changed).toContain(insider);
    expect(changed).not.toContain(stranger);
    expect(await kept()).toEqual([]);
  });

  it("of a member who has spoken replaces the key that a client was shown", async () => {
    const alice = await aUser();
    const { room } = await enter(alice);
    const userId: UserId = `@speaker:${second.serverName}`;
    await resident.join(room, userId);
    const [before, after] = [crossSigningKeyOf(userId, "master", "M1"), crossSigningKeyOf(userId, "master", "M2")];
    const devices = { ONE: deviceKeysOf({ userId, deviceId: "ONE" }) };
    resident.world.deviceLists.set(userId, { streamId: 5, devices, masterKey: before });
    const shown = async (): Promise<unknown> =>
      (await alice.ok("POST", "keys/query", { body: { device_keys: { [userId]: [] } } })).master_keys[userId];
    expect(await shown()).toEqual(before);

    await tell(second, "m.signing_key_update", { user_id: userId, master_key: after });

    expect(await shown()).toEqual(after);
  });
});
