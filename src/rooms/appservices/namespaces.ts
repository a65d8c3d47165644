import type { ApplicationService, Namespace } from "../../appservice-client/registration.ts";
import { MatrixError } from "../../federation-api/matrix-error.ts";
import { serverNameOf } from "../../matrix/identifiers.ts";
import type { RoomAlias, RoomId, ServerName, UserId } from "../../matrix/identifiers.ts";
import type { RoomsContext } from "../context.ts";

type ServicesContext = Pick<RoomsContext, "serverName" | "appservices">;

/** The services of the registration files. */
export function servicesOf(ctx: Pick<RoomsContext, "appservices">): readonly ApplicationService[] {
  return ctx.appservices?.services ?? [];
}

/** The user that a service acts as where it names none. */
export function senderOf(service: ApplicationService, serverName: ServerName): UserId {
  return `@${service.senderLocalpart}:${serverName}`;
}

/** Only users of this server: a pattern says nothing about those of others. */
export function isUserOf(service: ApplicationService, userId: UserId, serverName: ServerName): boolean {
  if (userId === senderOf(service, serverName)) return true;
  return serverNameOf(userId) === serverName && holds(service.namespaces.users, userId);
}

export function holdsAlias(service: ApplicationService, alias: RoomAlias): boolean {
  return holds(service.namespaces.aliases, alias);
}

export function holdsRoom(service: ApplicationService, roomId: RoomId): boolean {
  return holds(service.namespaces.rooms, roomId);
}

function holds(namespaces: readonly Namespace[], name: string): boolean {
  return namespaces.some(({ pattern }) => pattern.test(name));
}

function reserves(namespaces: readonly Namespace[], name: string): boolean {
  return namespaces.some(({ exclusive, pattern }) => exclusive && pattern.test(name));
}

/**
 * Whether somebody may make an account of this name: nobody may but the service that it is reserved for, and a service
 * may make none outside of its namespaces.
 *
 * @param by undefined for a human
 * @see https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions
 * @throws MatrixError 400 M_EXCLUSIVE
 */
export function requireUserAllowed(ctx: ServicesContext, userId: UserId, by?: ApplicationService): void {
  if (by !== undefined && !isUserOf(by, userId, ctx.serverName)) {
    throw new MatrixError(400, "M_EXCLUSIVE", `${userId} is not in the namespace of the application service`);
  }
  const isReserved = servicesOf(ctx).some(
    (service) =>
      service !== by && (userId === senderOf(service, ctx.serverName) || reserves(service.namespaces.users, userId)),
  );
  if (isReserved) throw new MatrixError(400, "M_EXCLUSIVE", `${userId} is reserved for an application service`);
}

/**
 * The same for making and deleting an alias.
 *
 * @throws MatrixError 400 M_EXCLUSIVE
 */
export function requireAliasAllowed(ctx: ServicesContext, alias: RoomAlias, by?: ApplicationService): void {
  if (by !== undefined && !holdsAlias(by, alias)) {
    throw new MatrixError(400, "M_EXCLUSIVE", `${alias} is not in the namespace of the application service`);
  }
  if (servicesOf(ctx).some((service) => service !== by && reserves(service.namespaces.aliases, alias))) {
    throw new MatrixError(400, "M_EXCLUSIVE", `${alias} is reserved for an application service`);
  }
}
