import { z } from "zod";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { pingAppservice } from "../rooms/appservices/ping-appservice.ts";
import { parseBody } from "./request-body.ts";
import { param, userRoute } from "./route.ts";

const pingBody = z.object({ transaction_id: z.string().optional() });

/** @see https://spec.matrix.org/v1.19/application-service-api/#pinging-1 */
export const appserviceRoutes = [
  userRoute("POST /_matrix/client/v1/appservice/:appserviceId/ping", async (ctx, request) => {
    const { service } = request.requester;
    if (ctx.appservices === undefined || service === undefined || service.id !== param(request, "appserviceId")) {
      throw new MatrixError(403, "M_FORBIDDEN", "Only an application service itself can have itself pinged");
    }
    const { transaction_id: transactionId } = parseBody(request, pingBody);
    return { duration_ms: await pingAppservice(ctx, ctx.appservices, { service, transactionId }) };
  }),
];
