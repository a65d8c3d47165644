import { createHash, timingSafeEqual } from "node:crypto";
import type { ApplicationService } from "../../appservice-client/registration.ts";
import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { UserId } from "../../matrix/identifiers.ts";
import { createUser, devicesOf, userExists, type Session } from "../../storage/accounts.ts";
import type { RoomsContext } from "../context.ts";
import { isUserOf, senderOf, servicesOf } from "./namespaces.ts";

type ActContext = Pick<RoomsContext, "serverName" | "database" | "appservices">;

/** The service that proves itself by this access token. */
export function serviceOfToken(
  ctx: Pick<RoomsContext, "appservices">,
  accessToken: string,
): ApplicationService | undefined {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  const given = digest(accessToken);
  return servicesOf(ctx).find(({ asToken }) => timingSafeEqual(digest(asToken), given));
}

/**
 * Whom a service acts as: a user of its namespace, by default its own; on a device of theirs, if it names one. Without,
 * the device id is empty.
 *
 * @see https://spec.matrix.org/v1.19/application-service-api/#identity-assertion
 * @throws MatrixError 403 M_FORBIDDEN, 400 M_UNKNOWN_DEVICE
 */
export async function requesterOfService(
  ctx: ActContext,
  service: ApplicationService,
  named: { readonly userId: UserId | undefined; readonly deviceId: string | undefined },
): Promise<Session> {
  const userId = named.userId ?? senderOf(service, ctx.serverName);
  if (!isUserOf(service, userId, ctx.serverName)) {
    throw new MatrixError(403, "M_FORBIDDEN", `The application service can't act as ${userId}`);
  }
  if (!(await userExists(ctx.database, userId))) {
    throw new MatrixError(403, "M_FORBIDDEN", `The application service has not registered ${userId}`);
  }
  const { deviceId } = named;
  if (deviceId === undefined) return { userId, deviceId: "" };
  if (!(await devicesOf(ctx.database, userId)).some((device) => device.deviceId === deviceId)) {
    throw new MatrixError(400, "M_UNKNOWN_DEVICE", `${userId} has no device ${deviceId}`);
  }
  return { userId, deviceId };
}

/** Makes the accounts of the services' own users, which nobody registers. */
export async function makeSenders(ctx: ActContext): Promise<void> {
  for (const service of servicesOf(ctx)) await createUser(ctx.database, senderOf(service, ctx.serverName));
}
