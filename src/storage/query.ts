import pg from "pg";
import { binaryArray } from "./binary-arrays.ts";
import { statementErrorOf } from "./errors.ts";

/** A pool, for single statements, or the client of a transaction. */
export type Connection = Pick<pg.ClientBase, "query">;

const INT8 = 20;

/** 64-bit integers as bigint, for our own queries only: Prisma shares the driver and has its own idea of them. */
const types = {
  getTypeParser(oid: number, format?: "text" | "binary") {
    return oid === INT8 ? BigInt : pg.types.getTypeParser(oid, format);
  },
} as pg.CustomTypesConfig;

/**
 * Runs one statement and gives its rows, int8 as bigint.
 *
 * @throws StorageConflict, PartialRoomGone, DatabaseUnavailable
 */
export async function queryRows<Row extends pg.QueryResultRow>(
  c: Connection,
  text: string,
  values: readonly unknown[] = [],
): Promise<Row[]> {
  return (await run<Row>(c, text, values)).rows;
}

/** Runs one statement and gives its first row. */
export async function queryRow<Row extends pg.QueryResultRow>(
  c: Connection,
  text: string,
  values: readonly unknown[] = [],
): Promise<Row | undefined> {
  return (await run<Row>(c, text, values)).rows[0];
}

/** Runs one statement and gives the number of rows it wrote. */
export async function execute(c: Connection, text: string, values: readonly unknown[] = []): Promise<number> {
  return (await run(c, text, values)).rowCount ?? 0;
}

async function run<Row extends pg.QueryResultRow>(
  c: Connection,
  text: string,
  values: readonly unknown[],
): Promise<pg.QueryResult<Row>> {
  try {
    return await c.query<Row>({ text, values: values.map(asParameter), types });
  } catch (error) {
    throw statementErrorOf(error);
  }
}

function asParameter(value: unknown): unknown {
  return Array.isArray(value) ? (binaryArray(value) ?? value) : value;
}
