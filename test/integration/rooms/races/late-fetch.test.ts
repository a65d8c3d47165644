import { describe, expect, it } from "vitest";
import { fetchMissingState } from "../../../../src/rooms/resync/resync-fetch-state.ts";
import { loadResyncStateIds } from "../../../../src/storage/resync-state-ids.ts";
import { holdAtRequest } from "../../../support/hold-point.ts";
import { completeResync, enterRoom, otherProcess, resyncUpTo } from "../../../support/race-scene.ts";
import { openScene } from "../../../support/scene.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;

describe("a worker whose fetch is answered when another one has ended the resync", () => {
  it("leaves nothing of it in the room", async () => {
    const entered = await enterRoom(scene);
    const { roomId, target } = entered;
    const { eventIds } = await resyncUpTo(sidecar.ctx, target, "fetch");
    const [eventId = "$none"] = eventIds;
    const other = otherProcess(sidecar.ctx);
    const held = holdAtRequest(other.federation, "stateIds", { after: true });
    const asked = { ...target, eventId, server: resident.serverName };
    const fetching = fetchMissingState({ ...other, federation: held.federation }, asked);
    await held.reached;
    await completeResync(scene, entered);
    held.release();

    expect(await fetching).toEqual({ kind: "complete" });
    expect(await loadResyncStateIds(database.pool, roomId, eventId)).toBeUndefined();
  });
});
