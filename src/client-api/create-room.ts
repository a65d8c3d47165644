import { z } from "zod";
import { ROOM_VERSIONS } from "../matrix/room-versions.ts";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { requireAliasAllowed } from "../rooms/appservices/namespaces.ts";
import { createRoom } from "../rooms/send/create-room.ts";
import { jsonObject, parseBody, userId } from "./request-body.ts";
import { userRoute } from "./route.ts";

const createRoomBody = z.object({
  room_version: z.string().optional(),
  visibility: z.enum(["public", "private"]).optional(),
  preset: z.enum(["private_chat", "public_chat", "trusted_private_chat"]).optional(),
  name: z.string().optional(),
  topic: z.string().optional(),
  room_alias_name: z.string().min(1).optional(),
  invite: z.array(userId).optional(),
  invite_3pid: z.array(z.unknown()).max(0, "inviting third-party identifiers is not supported").optional(),
  is_direct: z.boolean().optional(),
  initial_state: z
    .array(z.object({ type: z.string().min(1), state_key: z.string().optional(), content: jsonObject }))
    .optional(),
  creation_content: jsonObject.optional(),
  power_level_content_override: jsonObject.optional(),
});

/** @see https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom */
export const createRoomRoutes = [
  userRoute("POST /_matrix/client/v3/createRoom", async (ctx, request) => {
    const body = parseBody(request, createRoomBody);
    const version = ROOM_VERSIONS.find((known) => known === (body.room_version ?? ctx.defaultRoomVersion));
    if (version === undefined) {
      throw new MatrixError(400, "M_UNSUPPORTED_ROOM_VERSION", `body.room_version: ${body.room_version} is not known`);
    }
    if (body.room_alias_name !== undefined) {
      requireAliasAllowed(ctx, `#${body.room_alias_name}:${ctx.serverName}`, request.requester.service);
    }
    const roomId = await createRoom(ctx, request.requester.userId, {
      version,
      preset: body.preset ?? (body.visibility === "public" ? "public_chat" : "private_chat"),
      name: body.name,
      topic: body.topic,
      aliasName: body.room_alias_name,
      invite: body.invite ?? [],
      isDirect: body.is_direct ?? false,
      initialState: (body.initial_state ?? []).map(({ type, state_key, content }) => ({
        type,
        stateKey: state_key ?? "",
        content,
      })),
      creationContent: body.creation_content ?? {},
      powerLevelOverride: body.power_level_content_override ?? {},
    });
    return { room_id: roomId };
  }),
];
