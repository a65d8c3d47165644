import { MatrixError } from "../../federation-api/matrix-error.ts";
import { FederationFailure } from "../../federation-client/failures.ts";
import { serverNameOf } from "../../matrix/identifiers.ts";
import type { UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { loadProfile, setProfile } from "../../storage/accounts.ts";
import { joinedRooms } from "../../storage/memberships.ts";
import { askForUser } from "../appservices/ask-services.ts";
import type { RoomsContext } from "../context.ts";
import { createEvent } from "../events/create-event.ts";

type ProfileField = "displayname" | "avatar_url";
type Profile = { readonly [field in ProfileField]?: string };

/**
 * A user's profile: ours from the database, others' from their server.
 *
 * @throws MatrixError 404 M_NOT_FOUND; FederationFailure
 */
export async function profileOf(ctx: RoomsContext, userId: UserId): Promise<Profile> {
  const server = serverNameOf(userId);
  if (server !== undefined && server !== ctx.serverName) {
    return remoteProfile(ctx, userId, server);
  }
  const profile = await ourProfile(ctx, userId);
  if (profile === undefined) {
    throw unknownUser(userId);
  }
  return profileFrom({ displayname: profile.displayname, avatar_url: profile.avatarUrl });
}

/** Of a user of ours; an application service may make the account just now. */
export async function ourProfile(ctx: RoomsContext, userId: UserId): ReturnType<typeof loadProfile> {
  const profile = await loadProfile(ctx.database, userId);
  return profile === undefined && (await askForUser(ctx, userId)) ? loadProfile(ctx.database, userId) : profile;
}

async function remoteProfile(ctx: RoomsContext, userId: UserId, server: string): Promise<Profile> {
  try {
    return profileFrom(await ctx.federation.queryProfile(server, { userId }));
  } catch (error) {
    if (error instanceof FederationFailure && error.status === 404) {
      throw unknownUser(userId);
    }
    throw error;
  }
}

function unknownUser(userId: UserId): MatrixError {
  return new MatrixError(404, "M_NOT_FOUND", `${userId} is not known`);
}

function profileFrom({ displayname, avatar_url }: JsonObject): Profile {
  return {
    ...(typeof displayname === "string" ? { displayname } : {}),
    ...(typeof avatar_url === "string" ? { avatar_url } : {}),
  };
}

/** What of one of our users' profile goes into their member events. */
export async function memberContentOf(ctx: Pick<RoomsContext, "database">, userId: UserId): Promise<Profile> {
  const profile = await loadProfile(ctx.database, userId);
  return profileFrom({ displayname: profile?.displayname ?? null, avatar_url: profile?.avatarUrl ?? null });
}

/**
 * Changes the profile, and with it the user's member event in every room. A room that refuses keeps the old one.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#events-on-change-of-profile-information
 */
export async function setProfileField(
  ctx: RoomsContext,
  { userId, field, value }: { readonly userId: UserId; readonly field: ProfileField; readonly value: string },
): Promise<void> {
  const stored = value === "" ? null : value;
  await setProfile(ctx.database, userId, field === "displayname" ? { displayname: stored } : { avatarUrl: stored });
  const content = { ...(await memberContentOf(ctx, userId)), membership: "join" };
  for (const roomId of await joinedRooms(ctx.database.pool, userId)) {
    try {
      await createEvent(ctx, { roomId, sender: userId, type: "m.room.member", stateKey: userId, content });
    } catch (error) {
      if (!(error instanceof MatrixError)) {
        throw error;
      }
      ctx.logger.info({ roomId, userId, reason: error.message }, "the room refused a change of profile");
    }
  }
}
