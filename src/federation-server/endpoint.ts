import type { LongJson } from "../federation-api/long-json.ts";
import { MatrixError } from "../federation-api/matrix-error.ts";
import type { ServerName } from "../matrix/identifiers.ts";
import type { JsonValue } from "../matrix/json.ts";
import type { RoomsContext } from "../rooms/context.ts";

type Method = "GET" | "POST" | "PUT";

/** A request as an endpoint sees it: decoded, but nothing in it is checked. */
export interface FederationRequest {
  /** Of the path, percent-decoded. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  /** Undefined where no body was sent. */
  readonly body: JsonValue | undefined;
}

/** A request whose X-Matrix signature was found to be `origin`'s. */
export interface SignedRequest extends FederationRequest {
  readonly origin: ServerName;
}

interface Place {
  readonly method: Method;
  readonly path: string;
  readonly maxBodyBytes: number;
}

/** One endpoint. Its handler answers with the body of a 200 and throws MatrixError for all else. */
export type Endpoint = Place &
  (
    | {
        readonly signed: false;
        readonly handle: (ctx: RoomsContext, request: FederationRequest) => Promise<JsonValue>;
      }
    | {
        readonly signed: true;
        readonly handle: (ctx: RoomsContext, request: SignedRequest) => Promise<JsonValue | LongJson>;
      }
  );

type PlaceText = `${Method} /_matrix/${string}`;

/** An event may have 65,536 bytes; an invitation brings about a dozen of them. */
const MAX_BODY_BYTES = 1_048_576;

function placeOf(text: PlaceText, maxBodyBytes: number): Place {
  const space = text.indexOf(" ");
  return { method: text.slice(0, space) as Method, path: text.slice(space + 1), maxBodyBytes };
}

/** An endpoint that anyone may ask. */
export function openEndpoint(
  place: PlaceText,
  handle: (ctx: RoomsContext, request: FederationRequest) => Promise<JsonValue>,
): Endpoint {
  return { ...placeOf(place, MAX_BODY_BYTES), signed: false, handle };
}

/** An endpoint for servers that sign their requests. */
export function signedEndpoint(
  place: PlaceText,
  handle: (ctx: RoomsContext, request: SignedRequest) => Promise<JsonValue | LongJson>,
  maxBodyBytes: number = MAX_BODY_BYTES,
): Endpoint {
  return { ...placeOf(place, maxBodyBytes), signed: true, handle };
}

export function missingParam(name: string): MatrixError {
  return new MatrixError(400, "M_MISSING_PARAM", `${name} is missing`);
}

export function invalidParam(name: string, expected: string): MatrixError {
  return new MatrixError(400, "M_INVALID_PARAM", `${name} is not ${expected}`);
}
