import { describe, expect, it } from "vitest";
import { paths } from "../../../src/federation-api/endpoints.ts";

describe("paths", () => {
  it("encode ids in the path and in the query", () => {
    expect(paths.makeJoin("!a/b:x.example", "@u ü:us.example", ["1", "org.x?"])).toBe(
      "/_matrix/federation/v1/make_join/!a%2Fb%3Ax.example/%40u%20%C3%BC%3Aus.example?ver=1&ver=org.x%3F",
    );
    expect(paths.stateIds("!r:x", "$a/b+c")).toBe("/_matrix/federation/v1/state_ids/!r%3Ax?event_id=%24a%2Fb%2Bc");
  });

  it("ask for members to be omitted in words", () => {
    expect(paths.sendJoin("!r:x", "$e", true)).toBe("/_matrix/federation/v2/send_join/!r%3Ax/%24e?omit_members=true");
    expect(paths.sendJoin("!r:x", "$e", false)).toContain("omit_members=false");
  });

  it("leave out what is not given", () => {
    expect(paths.queryProfile("@u:x")).toBe("/_matrix/federation/v1/query/profile?user_id=%40u%3Ax");
    expect(paths.queryProfile("@u:x", "displayname")).toContain("&field=displayname");
  });
});
