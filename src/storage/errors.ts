import pg from "pg";

type ConflictCode = "serialization" | "deadlock" | "unique" | "foreign-key" | "check";

/** Two writers met: the transaction is rolled back, and the caller may run it again or settle for the other's result. */
export class StorageConflict extends Error {
  override readonly name = "StorageConflict";
  readonly code: ConflictCode;
  /** The constraint that was violated, where one was. */
  readonly constraint: string | undefined;

  constructor(code: ConflictCode, constraint: string | undefined, cause: Error) {
    super(cause.message, { cause });
    this.code = code;
    this.constraint = constraint;
  }
}

/**
 * An event or a server was to be noted for a partially joined room that has become fully joined (or was left)
 * meanwhile. Run the transaction again: the event's state can now be had in full.
 */
export class PartialRoomGone extends Error {
  override readonly name = "PartialRoomGone";
  readonly code = "partial-room-gone";

  constructor(cause: Error) {
    super("the room is no longer partially joined", { cause });
  }
}

/**
 * The database can't be had: the connection was lost, its disk is full, its connections are used up. Nothing of what was
 * asked is at fault, and whatever else is asked fares no better just now.
 */
export class DatabaseUnavailable extends Error {
  override readonly name = "DatabaseUnavailable";
  readonly code = "database-unavailable";
  /** Or the statement asks for too much, or for what can't be read: others may fare better after all. */
  readonly mayBeOfStatement: boolean;

  constructor(cause: Error) {
    super(cause.message, { cause });
    this.mayBeOfStatement = cause instanceof pg.DatabaseError && MAY_BE_OF_STATEMENT.test(cause.code ?? "");
  }
}

/**
 * Connection exceptions but a message of ours that is malformed, insufficient resources, an operator's shutdown, system errors; the end of an idle transaction,
 * and a server that only reads, as a replica does.
 *
 * @see https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
const UNAVAILABLE = /^(?:08(?!P01)|53|57P|58|25P03|25006)/;

/** Its temporary files or its memory are full, it reaches a limit that is configured, a block of its table is broken. */
const MAY_BE_OF_STATEMENT = /^(?:53[124]|58)/;

const CONFLICT_OF_SQLSTATE: ReadonlyMap<string, ConflictCode> = new Map([
  ["40001", "serialization"],
  ["40P01", "deadlock"],
  ["23505", "unique"],
  ["23503", "foreign-key"],
  ["23514", "check"],
]);

const REFERENCES_PARTIAL_ROOM: ReadonlySet<string> = new Set([
  "partial_state_events_room_id_fkey",
  "partial_state_rooms_servers_room_id_fkey",
]);

/** PostgreSQL words a missing referenced row and a still referenced one alike, but for the table it names. */
function missesPartialRoom(error: pg.DatabaseError): boolean {
  return (
    error.code === "23503" &&
    error.constraint !== undefined &&
    REFERENCES_PARTIAL_ROOM.has(error.constraint) &&
    error.detail?.includes("is not present") === true
  );
}

/** The typed error for what PostgreSQL answered; anything that callers can't handle comes back unchanged. */
export function storageErrorOf(error: unknown): unknown {
  if (!(error instanceof pg.DatabaseError)) return error;
  if (missesPartialRoom(error)) return new PartialRoomGone(error);
  if (UNAVAILABLE.test(error.code ?? "")) return new DatabaseUnavailable(error);
  const code = CONFLICT_OF_SQLSTATE.get(error.code ?? "");
  return code === undefined ? error : new StorageConflict(code, error.constraint, error);
}

/** The same for what a statement alone can end in: where PostgreSQL did not answer, the connection is lost. */
export function statementErrorOf(error: unknown): unknown {
  const isAnswer = error instanceof pg.DatabaseError;
  const isOurFault = error instanceof TypeError || error instanceof RangeError;
  return isAnswer || isOurFault || !(error instanceof Error) ? storageErrorOf(error) : new DatabaseUnavailable(error);
}
