import { z } from "zod";
import { sendToDevices } from "../rooms/devices/to-device.ts";
import { byUser, jsonObject, parseBody, parseParam, storableText, userId } from "./request-body.ts";
import { userRoute } from "./route.ts";

const toDeviceBody = z.object({ messages: z.record(userId, z.record(storableText, jsonObject)) });

/** @see https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging */
export const toDeviceRoutes = [
  userRoute("PUT /_matrix/client/v3/sendToDevice/:eventType/:txnId", async (ctx, request) => {
    const { messages } = parseBody(request, toDeviceBody);
    const type = parseParam("eventType", request.params["eventType"], storableText);
    const txnId = parseParam("txnId", request.params["txnId"], storableText);
    await sendToDevices(
      ctx,
      // Another type under the same id is another request.
      { ...request.requester, txnId: JSON.stringify([type, txnId]) },
      { type, contents: byUser(messages) },
    );
    return {};
  }),
];
