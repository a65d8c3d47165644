/**
 * Matrix identifiers as template-literal types: a room id can't be passed where an event id is wanted, and a literal
 * in a test needs no cast. The parsers are as lax as the specification asks of received identifiers.
 *
 * @see https://spec.matrix.org/v1.19/appendices/#common-identifier-format
 */

export type EventId = `$${string}`;
export type RoomId = `!${string}`;
export type UserId = `@${string}`;
export type RoomAlias = `#${string}`;
/** A host with an optional port, as it stands behind the colon of an identifier. */
export type ServerName = string;
/** An algorithm and a version, `ed25519:a_key`. */
export type KeyId = `${string}:${string}`;

const MAX_ID_BYTES = 255;

function fitsIdLimit(value: string): boolean {
  return value.length <= MAX_ID_BYTES && Buffer.byteLength(value) <= MAX_ID_BYTES;
}

export function isEventId(value: unknown): value is EventId {
  return typeof value === "string" && value.startsWith("$") && value.length > 1 && fitsIdLimit(value);
}

export function isRoomId(value: unknown): value is RoomId {
  return typeof value === "string" && value.startsWith("!") && value.length > 1 && fitsIdLimit(value);
}

export function isUserId(value: unknown): value is UserId {
  return typeof value === "string" && value.startsWith("@") && value.includes(":") && fitsIdLimit(value);
}

export function isRoomAlias(value: unknown): value is RoomAlias {
  return typeof value === "string" && value.startsWith("#") && value.includes(":") && fitsIdLimit(value);
}

export function isKeyId(value: unknown): value is KeyId {
  return typeof value === "string" && /^[a-z0-9]+:[A-Za-z0-9_]+$/.test(value);
}

/** The part behind the first colon: a server name may itself hold colons (a port, an IPv6 literal). */
export function serverNameOf(id: UserId | RoomAlias | EventId | RoomId): ServerName | undefined {
  const colon = id.indexOf(":");
  return colon < 0 ? undefined : id.slice(colon + 1);
}

const SERVER_NAME = /^(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,230})(?::[0-9]{1,5})?$/;

/** @see https://spec.matrix.org/v1.19/appendices/#server-name */
export function isServerName(value: unknown): value is ServerName {
  return typeof value === "string" && SERVER_NAME.test(value);
}
