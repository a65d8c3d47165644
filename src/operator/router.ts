import { createHash, timingSafeEqual } from "node:crypto";
import express, { type Request, type RequestHandler, type Response, type Router } from "express";
import { z } from "zod";
import { MatrixError } from "../federation-api/matrix-error.ts";
import {
  isEventId,
  isRoomAlias,
  isRoomId,
  isServerName,
  isUserId,
  type RoomAlias,
  type RoomId,
} from "../matrix/identifiers.ts";
import type { UserId } from "../matrix/identifiers.ts";
import type { OperatorContext } from "./context.ts";
import { giveRoomUp } from "./give-room-up.ts";
import { joinAs } from "./join-as.ts";
import { makeAccount } from "./make-account.ts";
import { OPERATOR_PATH } from "./operator-path.ts";
import { purgeKnownRoom } from "./purge-known-room.ts";
import { showChanges } from "./read-changes.ts";
import { showMisdirected } from "./read-misdirected.ts";
import { listResyncs, showResync } from "./read-resyncs.ts";
import { cancelResync, dropFromResync, retryResync } from "./steer-resync.ts";

const about = { by: z.string().min(1).max(255).default("operator"), why: z.string().max(1000).default("") };
const steerBody = z.object(about);
const retryBody = z.object({ ...about, via: z.string().refine(isServerName, "not a server name").optional() });
const dropBody = z.object({ ...about, eventId: z.string().refine(isEventId, "not an event id") });
const accountBody = z.object({ name: z.string().min(1).max(255), password: z.string().min(1).max(1000).optional() });
const joinBody = z.object({
  room: z.custom<RoomId | RoomAlias>((value) => isRoomId(value) || isRoomAlias(value), "not a room id or alias"),
  via: z.array(z.string().refine(isServerName, "not a server name")).default([]),
  userId: z.custom<UserId>(isUserId, "not a user id"),
});

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function requireToken(token: string): RequestHandler {
  const expected = digest(token);
  return (request, _response, next) => {
    const [scheme, given] = (request.get("authorization") ?? "").split(" ");
    if (scheme?.toLowerCase() !== "bearer" || !timingSafeEqual(digest(given ?? ""), expected)) {
      throw new MatrixError(401, "M_UNKNOWN_TOKEN", "The operator API needs the operator's token as a bearer token");
    }
    next();
  };
}

const changesQuery = z.object({
  after: z
    .string()
    .regex(/^\d{1,18}$/)
    .transform(BigInt)
    .default(0n),
});

function parse<T>(schema: z.ZodType<T>, request: Request): T {
  return parsed(schema, request.body ?? {});
}

function parseQuery<T>(schema: z.ZodType<T>, request: Request): T {
  return parsed(schema, request.query);
}

function parsed<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (!result.success) {
    throw new MatrixError(400, "M_INVALID_PARAM", z.prettifyError(result.error));
  }
  return result.data;
}

function roomIdOf(request: Request): RoomId {
  const { roomId } = request.params;
  if (!isRoomId(roomId)) {
    throw new MatrixError(400, "M_INVALID_PARAM", `Not a room id: ${String(roomId)}`);
  }
  return roomId;
}

/** express.json's own errors carry no Matrix error code. */
const readJson: RequestHandler = (request, response, next) => {
  express.json({ limit: "64kb", strict: true })(request, response, (error?: unknown) => {
    next(error === undefined ? undefined : new MatrixError(400, "M_NOT_JSON", "The body is not a JSON object"));
  });
};

function answering(work: (request: Request) => Promise<object>): RequestHandler {
  return async (request: Request, response: Response) => {
    response.json(await work(request));
  };
}

/** The operator's API; errors are MatrixErrors for the application's error handler. */
export function createOperatorRouter(ctx: OperatorContext, token: string): Router {
  const api = express.Router();
  api.use(requireToken(token), readJson);
  api.get(
    "/resyncs",
    answering(async () => ({ resyncs: await listResyncs(ctx) })),
  );
  api.get(
    "/resyncs/:roomId",
    answering((request) => showResync(ctx, roomIdOf(request))),
  );
  api.get(
    "/resyncs/:roomId/changes",
    answering((request) => showChanges(ctx, roomIdOf(request), parseQuery(changesQuery, request).after)),
  );
  api.get(
    "/resyncs/:roomId/misdirected",
    answering((request) => showMisdirected(ctx, roomIdOf(request))),
  );
  api.post(
    "/rooms/:roomId/purge",
    answering((request) => purgeKnownRoom(ctx, { roomId: roomIdOf(request), ...parse(steerBody, request) })),
  );
  api.post(
    "/resyncs/:roomId/retry",
    answering((request) => {
      const { via, ...rest } = parse(retryBody, request);
      return retryResync(ctx, { roomId: roomIdOf(request), ...rest, via });
    }),
  );
  api.post(
    "/resyncs/:roomId/cancel",
    answering((request) => cancelResync(ctx, { roomId: roomIdOf(request), ...parse(steerBody, request) })),
  );
  api.post(
    "/resyncs/:roomId/drop",
    answering((request) => dropFromResync(ctx, { roomId: roomIdOf(request), ...parse(dropBody, request) })),
  );
  api.post(
    "/resyncs/:roomId/leave",
    answering(async (request) => ({ left: await giveRoomUp(ctx, roomIdOf(request), parse(steerBody, request).why) })),
  );
  api.post(
    "/users",
    answering((request) => {
      const { name, password } = parse(accountBody, request);
      return makeAccount(ctx, { name, ...(password !== undefined && { password }) });
    }),
  );
  api.post(
    "/joins",
    answering((request) => joinAs(ctx, parse(joinBody, request))),
  );
  const router = express.Router();
  router.use(OPERATOR_PATH, api);
  return router;
}
