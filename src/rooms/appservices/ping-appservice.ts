import { AppserviceFailure } from "../../appservice-client/failure.ts";
import type { ApplicationService } from "../../appservice-client/registration.ts";
import { MatrixError } from "../../federation-api/matrix-error.ts";
import { endPushBackOff } from "../../storage/appservice-pushes.ts";
import type { Appservices, RoomsContext } from "../context.ts";

/**
 * Whether the service can be reached from here, as it asks itself. One that can be is pushed to at once, whatever it
 * has missed.
 *
 * @returns how long its answer took, in milliseconds
 * @see https://spec.matrix.org/v1.19/application-service-api/#pinging
 * @throws MatrixError 400 M_URL_NOT_SET, 502 M_BAD_STATUS, 502 M_CONNECTION_FAILED, 504 M_CONNECTION_TIMEOUT
 */
export async function pingAppservice(
  ctx: RoomsContext,
  { client }: Appservices,
  { service, transactionId }: { readonly service: ApplicationService; readonly transactionId: string | undefined },
): Promise<number> {
  if (service.url === null) throw new MatrixError(400, "M_URL_NOT_SET", "The application service has no url");
  try {
    const duration = await client.ping(service, transactionId);
    await endPushBackOff(ctx.database.pool, service.id);
    return duration;
  } catch (error) {
    throw error instanceof AppserviceFailure ? pingError(error) : error;
  }
}

function pingError({ kind, reason, status = 0, body = "" }: AppserviceFailure): MatrixError {
  switch (kind) {
    case "bad-status":
      return new MatrixError(502, "M_BAD_STATUS", `The ping failed: ${reason}`, { status, body });
    case "timeout":
      return new MatrixError(504, "M_CONNECTION_TIMEOUT", `The ping failed: ${reason}`);
    case "unreachable":
      return new MatrixError(502, "M_CONNECTION_FAILED", `The ping failed: ${reason}`);
  }
}
