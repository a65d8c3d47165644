import { AppserviceFailure } from "../../appservice-client/failure.ts";
import type { ApplicationService } from "../../appservice-client/registration.ts";
import type { RoomAlias, UserId } from "../../matrix/identifiers.ts";
import { userExists } from "../../storage/accounts.ts";
import type { Appservices, RoomsContext } from "../context.ts";
import { holdsAlias, isUserOf } from "./namespaces.ts";

type AskContext = Pick<RoomsContext, "serverName" | "database" | "appservices" | "logger">;

/**
 * Has the services make a user of ours that somebody invites or looks up and nobody has registered.
 *
 * @returns whether there is such a user now
 * @see https://spec.matrix.org/v1.19/application-service-api/#querying
 */
export async function askForUser(ctx: AskContext, userId: UserId): Promise<boolean> {
  const { appservices } = ctx;
  if (appservices === undefined) return false;
  const asked = appservices.services.filter((service) => isUserOf(service, userId, ctx.serverName));
  const said = await anySaysYes(ctx, asked, (service) => appservices.client.queryUser(service, userId));
  return said && (await userExists(ctx.database, userId));
}

/** The same for one whom somebody may have registered. */
export async function askIfUnknown(ctx: AskContext, userId: UserId): Promise<void> {
  if (ctx.appservices !== undefined && !(await userExists(ctx.database, userId))) await askForUser(ctx, userId);
}

/** Has the services make the room of an alias of ours that nobody has made. @returns whether one says that it has */
export async function askForAlias(ctx: AskContext, alias: RoomAlias): Promise<boolean> {
  const { appservices } = ctx;
  if (appservices === undefined) return false;
  const asked = appservices.services.filter((service) => holdsAlias(service, alias));
  return await anySaysYes(ctx, asked, (service) => appservices.client.queryAlias(service, alias));
}

/** One after the other: the first that makes it is enough. */
async function anySaysYes(
  ctx: AskContext,
  services: Appservices["services"],
  ask: (service: ApplicationService) => Promise<boolean>,
): Promise<boolean> {
  for (const service of services) {
    if (service.url === null) continue;
    try {
      if (await ask(service)) return true;
    } catch (error) {
      if (!(error instanceof AppserviceFailure)) throw error;
      ctx.logger.warn({ service: service.id, reason: error.reason }, "an application service does not answer");
    }
  }
  return false;
}
