import { MatrixError } from "../federation-api/matrix-error.ts";
import { requesterOfToken } from "../rooms/accounts/accounts.ts";
import type { ClientApiContext } from "./context.ts";
import type { AuthenticatedRequest, ClientRequest } from "./route.ts";

/**
 * The request with whose access token it carries: in the header, or in the query as old clients do.
 *
 * @throws MatrixError 401 M_MISSING_TOKEN or M_UNKNOWN_TOKEN
 * @see https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
 */
export async function authenticate(
  ctx: ClientApiContext,
  request: ClientRequest,
  authorization: string | undefined,
): Promise<AuthenticatedRequest> {
  const accessToken = /^Bearer +(\S+)$/i.exec(authorization ?? "")?.[1] ?? request.query.get("access_token");
  if (!accessToken) {
    throw new MatrixError(401, "M_MISSING_TOKEN", "Missing access token");
  }
  const requester = await requesterOfToken(ctx, accessToken);
  if (!requester) {
    throw new MatrixError(401, "M_UNKNOWN_TOKEN", "Unknown access token", { soft_logout: false });
  }
  return { ...request, requester, accessToken };
}
