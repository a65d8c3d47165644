import type { ApplicationService } from "../appservice-client/registration.ts";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { requesterOfToken } from "../rooms/accounts/accounts.ts";
import { requesterOfService, serviceOfToken } from "../rooms/appservices/act-as.ts";
import type { ClientApiContext } from "./context.ts";
import { parseParam, userId } from "./request-body.ts";
import type { AuthenticatedRequest, ClientRequest } from "./route.ts";

/** The access token that a request carries: in the header, or in the query as old clients do. */
export function accessTokenOf(authorization: string | undefined, query: URLSearchParams): string | undefined {
  return /^Bearer +(\S+)$/i.exec(authorization ?? "")?.[1] ?? (query.get("access_token") || undefined);
}

/**
 * The request with whose access token it carries: a user's, or an application service's, which acts as a user.
 *
 * @throws MatrixError 401 M_MISSING_TOKEN or M_UNKNOWN_TOKEN; of a service as {@link requesterOfService}
 * @see https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
 */
export async function authenticate(ctx: ClientApiContext, request: ClientRequest): Promise<AuthenticatedRequest> {
  const accessToken = requireToken(request);
  const service = serviceOfToken(ctx, accessToken);
  if (service !== undefined) {
    const named = request.query.get("user_id");
    const session = await requesterOfService(ctx, service, {
      userId: named === null ? undefined : parseParam("user_id", named, userId),
      deviceId: request.query.get("device_id") ?? undefined,
    });
    return { ...request, requester: { ...session, service }, accessToken };
  }
  const requester = await requesterOfToken(ctx, accessToken);
  if (!requester) throw unknownToken();
  return { ...request, requester, accessToken };
}

/**
 * The application service that the request comes from, whoever it acts as.
 *
 * @throws MatrixError 401 M_MISSING_TOKEN or M_UNKNOWN_TOKEN
 */
export function requireService(ctx: ClientApiContext, request: ClientRequest): ApplicationService {
  const service = serviceOfToken(ctx, requireToken(request));
  if (service === undefined) throw unknownToken();
  return service;
}

function requireToken({ accessToken }: ClientRequest): string {
  if (accessToken === undefined) throw new MatrixError(401, "M_MISSING_TOKEN", "Missing access token");
  return accessToken;
}

function unknownToken(): MatrixError {
  return new MatrixError(401, "M_UNKNOWN_TOKEN", "Unknown access token", { soft_logout: false });
}
