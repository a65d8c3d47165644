import { randomBytes } from "node:crypto";
import { z } from "zod";
import { MatrixError } from "../federation-api/matrix-error.ts";
import type { UserId } from "../matrix/identifiers.ts";
import { isJsonObject } from "../matrix/json.ts";
import type { JsonObject } from "../matrix/json.ts";
import { checkPassword, hasPassword } from "../rooms/accounts/accounts.ts";
import type { ClientApiContext } from "./context.ts";
import type { AuthenticatedRequest } from "./route.ts";

const STAGE = "m.login.password";

const passwordAuth = z.object({
  type: z.literal(STAGE),
  password: z.string(),
  identifier: z.object({ type: z.string(), user: z.string().optional() }).optional(),
  // Before `identifier`, clients named the user here.
  user: z.string().optional(),
});

/**
 * Has the user prove who they are by their password before something that a stolen access token must not be enough
 * for. An account without a password is its operator's: nobody could prove it. There is one flow of one stage, so
 * nothing has to be remembered between the requests of a session.
 *
 * @throws MatrixError 401 with the flows until the password is right
 * @see https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
 */
export async function requirePassword(ctx: ClientApiContext, request: AuthenticatedRequest): Promise<void> {
  const { userId } = request.requester;
  if (!(await hasPassword(ctx, userId))) return;
  const auth = isJsonObject(request.body) ? request.body["auth"] : undefined;
  const given = isJsonObject(auth) ? auth : {};
  const parsed = passwordAuth.safeParse(given);
  if (!parsed.success) throw new MatrixError(401, "M_UNAUTHORIZED", "The password is needed", challengeOf(given));
  const user = parsed.data.identifier?.user ?? parsed.data.user ?? userId;
  const named: UserId = user.startsWith("@") ? (user as UserId) : `@${user}:${ctx.serverName}`;
  try {
    if (named !== userId) throw new MatrixError(403, "M_FORBIDDEN", "The request is another user's");
    await checkPassword(ctx, { userId, password: parsed.data.password });
  } catch (error) {
    if (!(error instanceof MatrixError)) throw error;
    throw new MatrixError(401, error.errcode, error.message, challengeOf(given));
  }
}

function challengeOf(given: JsonObject): JsonObject {
  return {
    flows: [{ stages: [STAGE] }],
    params: {},
    completed: [],
    session: typeof given["session"] === "string" ? given["session"] : randomBytes(18).toString("base64url"),
  };
}
