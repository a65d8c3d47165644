import { createHash, randomBytes } from "node:crypto";
import type { UserId } from "../matrix/identifiers.ts";
import type { Database } from "./database.ts";
import { hashPassword, passwordMatches } from "./password-hash.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

interface Profile {
  readonly displayname: string | null;
  readonly avatarUrl: string | null;
}

/** Who a request comes from. */
export interface Session {
  readonly userId: UserId;
  readonly deviceId: string;
}

interface DeviceRow {
  readonly deviceId: string;
  readonly displayName: string | null;
}

/** Tokens are random enough that a fast hash protects them; the token itself is never stored. */
function tokenHash(token: string): string {
  return createHash("sha256").update(token).digest("base64");
}

/** Makes an account, without a password one that only an operator can act for. False if the user exists already. */
export async function createUser(database: Database, userId: UserId, password?: string): Promise<boolean> {
  const prisma = await database.prisma();
  const passwordHash = password === undefined ? null : await hashPassword(password);
  const { count } = await prisma.user.createMany({ data: [{ userId, passwordHash }], skipDuplicates: true });
  return count === 1;
}

export async function userExists(database: Database, userId: UserId): Promise<boolean> {
  const prisma = await database.prisma();
  return (await prisma.user.count({ where: { userId } })) === 1;
}

export async function passwordIsSet(database: Database, userId: UserId): Promise<boolean> {
  const prisma = await database.prisma();
  return (await prisma.user.count({ where: { userId, passwordHash: { not: null } } })) === 1;
}

/** False for a wrong password, an unknown user, and a user without a password. */
export async function verifyPassword(database: Database, userId: UserId, password: string): Promise<boolean> {
  const prisma = await database.prisma();
  const user = await prisma.user.findUnique({ where: { userId }, select: { passwordHash: true } });
  const stored = user?.passwordHash ?? null;
  if (stored === null) {
    // As much work as for a user that exists: the time of the answer tells nothing.
    await hashPassword(password);
    return false;
  }
  return passwordMatches(password, stored);
}

/** Undefined for an unknown user. */
export async function loadProfile(database: Database, userId: UserId): Promise<Profile | undefined> {
  const prisma = await database.prisma();
  const user = await prisma.user.findUnique({
    where: { userId },
    select: { displayname: true, avatarUrl: true },
  });
  return user ?? undefined;
}

export async function setProfile(database: Database, userId: UserId, profile: Partial<Profile>): Promise<void> {
  const prisma = await database.prisma();
  await prisma.user.update({ where: { userId }, data: profile });
}

/** Logs a device in (a known one again: its older tokens end) and gives its access token. */
export async function createSession(database: Database, session: Session, displayName?: string): Promise<string> {
  const { userId, deviceId } = session;
  const token = `fj_${randomBytes(32).toString("base64url")}`;
  const named = displayName === undefined ? {} : { displayName };
  const prisma = await database.prisma();
  await prisma.$transaction([
    prisma.device.upsert({
      where: { userId_deviceId: { userId, deviceId } },
      create: { userId, deviceId, ...named },
      update: named,
    }),
    prisma.accessToken.deleteMany({ where: { userId, deviceId } }),
    prisma.accessToken.create({ data: { tokenHash: tokenHash(token), userId, deviceId } }),
  ]);
  return token;
}

/** Asked with each request of a client: by a plain statement, which takes a fraction of what Prisma does. */
export async function sessionOf(database: Database, token: string): Promise<Session | undefined> {
  return queryRow<{ userId: UserId; deviceId: string }>(
    database.pool,
    `SELECT user_id AS "userId", device_id AS "deviceId" FROM access_tokens WHERE token_hash = $1`,
    [tokenHash(token)],
  );
}

/** In the order of their ids. */
export async function devicesOf(database: Database, userId: UserId): Promise<readonly DeviceRow[]> {
  const prisma = await database.prisma();
  return await prisma.device.findMany({
    where: { userId },
    select: { deviceId: true, displayName: true },
    orderBy: { deviceId: "asc" },
  });
}

/** False for a device that is not there. */
export async function setDeviceName(tx: Connection, device: Session, displayName: string): Promise<boolean> {
  const { userId, deviceId } = device;
  const text = `UPDATE devices SET display_name = $3 WHERE user_id = $1 AND device_id = $2`;
  return (await execute(tx, text, [userId, deviceId, displayName])) === 1;
}

/** Keeps a device from being logged out until the transaction ends, and from other uploads. False if it is not there. */
export async function lockDevice(tx: Connection, { userId, deviceId }: Session): Promise<boolean> {
  const text = `SELECT 1 FROM devices WHERE user_id = $1 AND device_id = $2 FOR NO KEY UPDATE`;
  return (await queryRow(tx, text, [userId, deviceId])) !== undefined;
}

/** Logs devices out: they, their tokens and their keys are gone. @returns the ids of those that were there */
export async function deleteDevices(
  tx: Connection,
  userId: UserId,
  deviceIds: readonly string[],
): Promise<readonly string[]> {
  const rows = await queryRows<{ id: string }>(
    tx,
    `DELETE FROM devices WHERE user_id = $1 AND device_id = ANY ($2::text[]) RETURNING device_id AS id`,
    [userId, deviceIds],
  );
  return rows.map((row) => row.id).toSorted();
}
