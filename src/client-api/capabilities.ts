import { ROOM_VERSIONS } from "../matrix/room-versions.ts";
import { userRoute } from "./route.ts";

/** @see https://spec.matrix.org/v1.19/client-server-api/#capabilities-negotiation */
export const capabilitiesRoutes = [
  userRoute("GET /_matrix/client/v3/capabilities", async (ctx) => ({
    capabilities: {
      "m.room_versions": {
        default: ctx.defaultRoomVersion,
        available: Object.fromEntries(ROOM_VERSIONS.map((version) => [version, "stable"])),
      },
      "m.change_password": { enabled: false },
      "m.set_displayname": { enabled: true },
      "m.set_avatar_url": { enabled: true },
      "m.3pid_changes": { enabled: false },
      "m.get_login_token": { enabled: false },
    },
  })),
];
