import { deflateRawSync, inflateRawSync } from "node:zlib";
import { z } from "zod";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { JsonSyntaxError, parseJson, stringifyJson } from "../matrix/json.ts";
import type { JsonValue } from "../matrix/json.ts";
import type { EventFilter, Filter } from "../rooms/read/event-filter.ts";
import { jsonObject, parseBody, parseParam, userIdParam } from "./request-body.ts";
import { param, userRoute } from "./route.ts";
import type { AuthenticatedRequest } from "./route.ts";

const names = z.array(z.string()).optional();
const eventFilter = z.object({
  limit: z.number().int().min(0).optional(),
  types: names,
  not_types: names,
  senders: names,
  not_senders: names,
  contains_url: z.boolean().optional(),
  lazy_load_members: z.boolean().optional(),
});
const filterSchema: z.ZodType<Filter> = z.object({
  room: z
    .object({
      rooms: names,
      not_rooms: names,
      include_leave: z.boolean().optional(),
      state: eventFilter.optional(),
      timeline: eventFilter.optional(),
      ephemeral: eventFilter.optional(),
      account_data: eventFilter.optional(),
    })
    .optional(),
  presence: eventFilter.optional(),
  account_data: eventFilter.optional(),
});

/** Of the filter, packed; the longest query that common proxies pass on is 8,192 bytes. */
const MAX_FILTER_ID_LENGTH = 4_096;
const MAX_FILTER_BYTES = 65_536;

/**
 * A filter's id is the filter itself, packed: nothing has to be stored, an id never expires, and the same filter has
 * the same id.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#filtering
 */
export const filterRoutes = [
  userRoute("POST /_matrix/client/v3/user/:userId/filter", async (_ctx, request) => {
    checkOwner(request);
    parseBody(request, filterSchema);
    return { filter_id: filterIdOf(parseBody(request, jsonObject)) };
  }),
  userRoute("GET /_matrix/client/v3/user/:userId/filter/:filterId", async (_ctx, request) => {
    checkOwner(request);
    return jsonObject.parse(unpack(param(request, "filterId")));
  }),
];

function checkOwner(request: AuthenticatedRequest): void {
  if (userIdParam(request) !== request.requester.userId) {
    throw new MatrixError(403, "M_FORBIDDEN", "Filters are their owner's own");
  }
}

function filterIdOf(filter: JsonValue): string {
  const id = deflateRawSync(stringifyJson(filter)).toString("base64url");
  if (id.length > MAX_FILTER_ID_LENGTH) {
    throw new MatrixError(400, "M_INVALID_PARAM", "The filter is too large");
  }
  return id;
}

function unpack(id: string): JsonValue {
  try {
    const packed = Buffer.from(id, "base64url");
    return jsonObject.parse(parseJson(inflateRawSync(packed, { maxOutputLength: MAX_FILTER_BYTES }).toString()));
  } catch {
    throw new MatrixError(404, "M_NOT_FOUND", "There is no such filter");
  }
}

function parseInline(text: string): JsonValue {
  try {
    return parseJson(text);
  } catch (error) {
    if (error instanceof JsonSyntaxError) {
      throw new MatrixError(400, "M_NOT_JSON", `filter: ${error.message}`);
    }
    throw error;
  }
}

/** The filter of `/sync`: an id, or the JSON itself. */
export function parseFilter(text: string): Filter {
  const filter = text.startsWith("{") ? parseInline(text) : unpack(text);
  return parseParam("filter", filter, filterSchema);
}

/** The filter of `/messages`: JSON. */
export function parseInlineFilter(text: string): EventFilter {
  return parseParam("filter", parseInline(text), eventFilter);
}
