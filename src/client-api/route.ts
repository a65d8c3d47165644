import type { ApplicationService } from "../appservice-client/registration.ts";
import type { LongJson } from "../federation-api/long-json.ts";
import { MatrixError } from "../federation-api/matrix-error.ts";
import type { UserId } from "../matrix/identifiers.ts";
import type { JsonValue } from "../matrix/json.ts";
import type { ClientApiContext } from "./context.ts";

/** Whose access token came with the request. */
interface Requester {
  readonly userId: UserId;
  /** Empty for an application service that names none. */
  readonly deviceId: string;
  /** That acts as the user. */
  readonly service?: ApplicationService;
}

export interface ClientRequest {
  /** Of the path, percent-decoded. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  /** Undefined where no body was sent. */
  readonly body: JsonValue | undefined;
  readonly accessToken: string | undefined;
  /** Aborted when the client goes away before its answer. */
  readonly signal: AbortSignal;
}

export interface AuthenticatedRequest extends ClientRequest {
  readonly requester: Requester;
  readonly accessToken: string;
}

type Method = "get" | "post" | "put" | "delete";

interface Place {
  readonly method: Method;
  readonly path: string;
}

/** One endpoint. Its handler answers with the body of a 200 and throws MatrixError for all else. */
export type Route = Place &
  (
    | {
        readonly authenticated: false;
        readonly handle: (ctx: ClientApiContext, request: ClientRequest) => Promise<JsonValue>;
      }
    | {
        readonly authenticated: true;
        readonly handle: (ctx: ClientApiContext, request: AuthenticatedRequest) => Promise<JsonValue | LongJson>;
      }
  );

type PlaceText = `${Uppercase<Method>} /${string}`;

function placeOf(text: PlaceText): Place {
  const space = text.indexOf(" ");
  return { method: text.slice(0, space).toLowerCase() as Method, path: text.slice(space + 1) };
}

/** An endpoint that anyone may call. */
export function openRoute(
  place: PlaceText,
  handle: (ctx: ClientApiContext, request: ClientRequest) => Promise<JsonValue>,
): Route {
  return { ...placeOf(place), authenticated: false, handle };
}

/** An endpoint that needs an access token. */
export function userRoute(
  place: PlaceText,
  handle: (ctx: ClientApiContext, request: AuthenticatedRequest) => Promise<JsonValue | LongJson>,
): Route {
  return { ...placeOf(place), authenticated: true, handle };
}

/** A parameter of the path that the route is known to have. */
export function param(request: ClientRequest, name: string): string {
  const value = request.params[name];
  if (value === undefined) {
    throw new MatrixError(400, "M_INVALID_PARAM", `The path lacks ${name}`);
  }
  return value;
}
