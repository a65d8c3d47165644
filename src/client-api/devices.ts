import { z } from "zod";
import { describeDevice, listDevices, removeDevices, renameDevice } from "../rooms/devices/manage-devices.ts";
import { parseBody } from "./request-body.ts";
import { param, userRoute } from "./route.ts";
import type { AuthenticatedRequest } from "./route.ts";
import { requirePassword } from "./user-interactive-auth.ts";

const deviceBody = z.object({ display_name: z.string().max(1_000).optional() });
const deleteBody = z.object({ devices: z.array(z.string()).max(1_000) });

/** @see https://spec.matrix.org/v1.19/client-server-api/#device-management */
export const devicesRoutes = [
  userRoute("GET /_matrix/client/v3/devices", async (ctx, { requester }) => ({
    devices: await listDevices(ctx, requester.userId),
  })),
  userRoute("GET /_matrix/client/v3/devices/:deviceId", async (ctx, request) =>
    describeDevice(ctx, namedDevice(request)),
  ),
  userRoute("PUT /_matrix/client/v3/devices/:deviceId", async (ctx, request) => {
    await renameDevice(ctx, namedDevice(request), parseBody(request, deviceBody).display_name);
    return {};
  }),
  userRoute("DELETE /_matrix/client/v3/devices/:deviceId", async (ctx, request) => {
    await requirePassword(ctx, request);
    await removeDevices(ctx, request.requester.userId, [param(request, "deviceId")]);
    return {};
  }),
  userRoute("POST /_matrix/client/v3/delete_devices", async (ctx, request) => {
    const { devices } = parseBody(request, deleteBody);
    await requirePassword(ctx, request);
    await removeDevices(ctx, request.requester.userId, devices);
    return {};
  }),
];

function namedDevice(request: AuthenticatedRequest): AuthenticatedRequest["requester"] {
  return { userId: request.requester.userId, deviceId: param(request, "deviceId") };
}
