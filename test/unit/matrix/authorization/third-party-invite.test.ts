import { describe, expect, it } from "vitest";

import type { UserId } from "../../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../../src/matrix/json.ts";
import { signingKeyFromSeed, signJson } from "../../../../src/matrix/signatures.ts";
import { ALICE, aRoom, BOB, CHARLIE, DORA, member, openRoom, ruleFor } from "../../../support/builders.ts";
import type { EventDraft } from "../../../support/builders.ts";

const KEY = signingKeyFromSeed("ed25519:0", Buffer.alloc(32, 1));
const OTHER_KEY = signingKeyFromSeed("ed25519:0", Buffer.alloc(32, 2));
const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");

function offer(content: JsonObject = { public_key: base64(KEY.publicKey) }): EventDraft {
  return { type: "m.room.third_party_invite", sender: BOB, stateKey: "token", content };
}

function redeem(signed: JsonObject | undefined, sender: UserId = BOB): EventDraft {
  return member(sender, "invite", DORA, { third_party_invite: { display_name: "d", ...(signed && { signed }) } });
}

const signed = (fields: JsonObject = { mxid: DORA, token: "token" }, key = KEY) => signJson(fields, "id.example", key);

function rule(draft: EventDraft, before: readonly EventDraft[] = [offer()]): string {
  const room = aRoom("11");
  return ruleFor(room, room.send(openRoom(room), ...before), draft).replace("membership.invite.third-party", "3pid");
}

describe("checkThirdPartyInvite", () => {
  it("allows an invite that is signed with the key of the offer", () => {
    expect(rule(redeem(signed()))).toBe("3pid");
    expect(rule(redeem(signed()), [offer({ public_keys: [{ public_key: base64(KEY.publicKey) }] })])).toBe("3pid");
    const both = { public_key: base64(OTHER_KEY.publicKey), public_keys: [{ public_key: base64(KEY.publicKey) }] };
    expect(rule(redeem(signed()), [offer(both)])).toBe("3pid");
  });

  it("does not ask whether the sender is in the room still, or the target's level", () => {
    expect(rule(redeem(signed()), [offer(), member(BOB, "leave")])).toBe("3pid");
    expect(rule(redeem(signed()), [offer(), member(DORA, "join")])).toBe("3pid");
  });

  it("refuses a banned target", () => {
    expect(rule(redeem(signed()), [offer(), member(ALICE, "ban", DORA)])).toBe("-3pid.target-banned");
  });

  it("refuses what is incomplete", () => {
    expect(rule(redeem(undefined))).toBe("-3pid.no-signed");
    expect(rule(member(BOB, "invite", DORA, { third_party_invite: "x" }))).toBe("-3pid.no-signed");
    expect(rule(redeem(signed({ mxid: DORA })))).toBe("-3pid.incomplete");
    expect(rule(redeem(signed({ token: "token" })))).toBe("-3pid.incomplete");
  });

  it("refuses an invite for another user, with another token or by another sender", () => {
    expect(rule(redeem(signed({ mxid: CHARLIE, token: "token" })))).toBe("-3pid.other-user");
    expect(rule(redeem(signed({ mxid: DORA, token: "other" })))).toBe("-3pid.unknown-token");
    expect(rule(redeem(signed()), [])).toBe("-3pid.unknown-token");
    expect(rule(redeem(signed(), ALICE))).toBe("-3pid.other-sender");
  });

  it("refuses what no key of the offer has signed", () => {
    expect(rule(redeem(signed(undefined, OTHER_KEY)))).toBe("-3pid.signature");
    expect(rule(redeem({ mxid: DORA, token: "token" }))).toBe("-3pid.signature");
    expect(rule(redeem({ ...signed(), extra: "added" }))).toBe("-3pid.signature");
    expect(rule(redeem({ ...signed(), signatures: { "id.example": "x", other: { "rsa:1": "y" } } }))).toBe(
      "-3pid.signature",
    );
    for (const content of [
      {},
      { public_key: "short" },
      { public_keys: "x" },
      { public_keys: [null, { public_key: 5 }] },
    ]) {
      expect(rule(redeem(signed()), [offer(content)])).toBe("-3pid.signature");
    }
  });
});
