import { describe, expect, it } from "vitest";
import { parseDeviceUpdate, placeOfUpdate } from "../../../src/rooms/devices/apply-device-update.ts";

const held = { streamId: 5n, stale: false };

describe("placeOfUpdate", () => {
  it("takes an update that refers to the last one for the next", () => {
    expect(placeOfUpdate(held, { streamId: 6n, prevIds: [5n] })).toBe("next");
    expect(placeOfUpdate(held, { streamId: 9n, prevIds: [5n, 5n] })).toBe("next");
  });

  it("knows the last one again", () => {
    expect(placeOfUpdate(held, { streamId: 5n, prevIds: [4n] })).toBe("known");
  });

  it.each([
    ["refers to one that was not seen", { streamId: 7n, prevIds: [6n] }],
    ["refers to one that was not seen, beside the last", { streamId: 7n, prevIds: [5n, 6n] }],
    ["refers to none", { streamId: 6n, prevIds: [] }],
    ["is older", { streamId: 4n, prevIds: [5n] }],
  ])("sees a gap before one that %s", (_what, update) => {
    expect(placeOfUpdate(held, update)).toBe("gap");
  });

  it("sees a gap before any update of a list that is stale or was never fetched", () => {
    const next = { streamId: 6n, prevIds: [5n] };
    expect(placeOfUpdate({ ...held, stale: true }, next)).toBe("gap");
    expect(placeOfUpdate({ streamId: null, stale: false }, next)).toBe("gap");
  });
});

describe("parseDeviceUpdate", () => {
  const update = { user_id: "@a:b", device_id: "D", stream_id: 3, prev_id: [2], keys: { user_id: "@a:b" } };

  it("reads an update as the specification has it, also without what is optional", () => {
    expect(parseDeviceUpdate("m.device_list_update", update)).toEqual({ eduType: "m.device_list_update", ...update });
    const { prev_id: _prev, keys: _keys, ...least } = update;
    expect(parseDeviceUpdate("m.device_list_update", least)).toEqual({ eduType: "m.device_list_update", ...least });
    const keys = { user_id: "@a:b", master_key: { usage: ["master"] } };
    expect(parseDeviceUpdate("m.signing_key_update", keys)).toEqual({ eduType: "m.signing_key_update", ...keys });
  });

  it.each([
    { ...update, user_id: "a" },
    { ...update, user_id: "@a\0:b" },
    { ...update, device_id: "" },
    { ...update, device_id: "D\0" },
    { ...update, stream_id: 1.5 },
    { ...update, stream_id: "3" },
    { ...update, prev_id: 2 },
    { ...update, keys: [] },
  ])("reads nothing from %j", (content) => {
    expect(parseDeviceUpdate("m.device_list_update", content)).toBeUndefined();
  });
});
