import { randomBytes } from "node:crypto";
import { MatrixError } from "../../federation-api/matrix-error.ts";
import { isUserId, serverNameOf } from "../../matrix/identifiers.ts";
import type { UserId } from "../../matrix/identifiers.ts";
import {
  createSession,
  createUser,
  devicesOf,
  passwordIsSet,
  sessionOf,
  userExists,
  verifyPassword,
} from "../../storage/accounts.ts";
import type { Session } from "../../storage/accounts.ts";
import type { RoomsContext } from "../context.ts";
import { removeDevices } from "../devices/manage-devices.ts";

/** What accounts need of the context. */
type AccountsContext = Pick<RoomsContext, "serverName" | "database">;

interface OpenedSession {
  readonly deviceId: string;
  readonly accessToken: string;
}

/** @see https://spec.matrix.org/v1.19/appendices/#user-identifiers */
const LOCALPART = /^[a-z0-9._=/+-]+$/;

/** @throws MatrixError 400 M_INVALID_USERNAME */
function userIdOf(ctx: AccountsContext, localpart: string): UserId {
  const userId = `@${localpart}:${ctx.serverName}`;
  if (!LOCALPART.test(localpart) || !isUserId(userId)) {
    throw new MatrixError(
      400,
      "M_INVALID_USERNAME",
      `${JSON.stringify(localpart)} is no user name: use a-z, 0-9 and ._=-/+, not too many of them`,
    );
  }
  return userId;
}

/** @throws MatrixError 400 M_INVALID_USERNAME, M_USER_IN_USE */
export async function checkNameIsFree(ctx: AccountsContext, localpart: string): Promise<void> {
  if (await userExists(ctx.database, userIdOf(ctx, localpart))) {
    throw nameTaken(localpart);
  }
}

/**
 * Makes an account; without a password nobody can log in to it until one is set.
 *
 * @throws MatrixError 400 M_INVALID_USERNAME, M_USER_IN_USE
 */
export async function createAccount(
  ctx: AccountsContext,
  account: { readonly localpart: string; readonly password?: string },
): Promise<UserId> {
  const userId = userIdOf(ctx, account.localpart);
  if (!(await createUser(ctx.database, userId, account.password))) {
    throw nameTaken(account.localpart);
  }
  return userId;
}

function nameTaken(localpart: string): MatrixError {
  return new MatrixError(400, "M_USER_IN_USE", `The user name ${localpart} is taken`);
}

/** @throws MatrixError 403 M_FORBIDDEN for a wrong password and an unknown user alike */
export async function checkPassword(
  ctx: AccountsContext,
  { userId, password }: { readonly userId: UserId; readonly password: string },
): Promise<void> {
  const ours = serverNameOf(userId) === ctx.serverName;
  if (!ours || !(await verifyPassword(ctx.database, userId, password))) {
    throw new MatrixError(403, "M_FORBIDDEN", "Invalid user name or password");
  }
}

/** Whether a user could prove who they are by a password. */
export async function hasPassword(ctx: AccountsContext, userId: UserId): Promise<boolean> {
  return passwordIsSet(ctx.database, userId);
}

/** Logs a device in; without an id of its own it is given one. */
export async function openSession(
  ctx: AccountsContext,
  device: {
    readonly userId: UserId;
    readonly deviceId?: string | undefined;
    readonly displayName?: string | undefined;
  },
): Promise<OpenedSession> {
  const deviceId = device.deviceId ?? randomBytes(8).toString("hex").toUpperCase();
  const accessToken = await createSession(ctx.database, { userId: device.userId, deviceId }, device.displayName);
  return { deviceId, accessToken };
}

/** Whose access token it is; undefined for none of ours. */
export async function requesterOfToken(ctx: AccountsContext, accessToken: string): Promise<Session | undefined> {
  return sessionOf(ctx.database, accessToken);
}

export async function closeSession(ctx: AccountsContext, { userId, deviceId }: Session): Promise<void> {
  await removeDevices(ctx, userId, [deviceId]);
}

export async function closeAllSessions(ctx: AccountsContext, userId: UserId): Promise<void> {
  const devices = await devicesOf(ctx.database, userId);
  await removeDevices(
    ctx,
    userId,
    devices.map(({ deviceId }) => deviceId),
  );
}
