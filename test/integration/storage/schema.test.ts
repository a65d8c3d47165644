import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { openTestDatabase } from "../../support/database.ts";

const database = await openTestDatabase();

/** `table.column type[] null`, as both sides can say it. */
type Column = string;

interface Schema {
  readonly columns: readonly Column[];
  /** `table (column, column)` */
  readonly keys: readonly string[];
  readonly uniques: readonly string[];
  readonly references: readonly string[];
  /** With their names. */
  readonly indexes: readonly string[];
}

const TYPES: Readonly<Record<string, string>> = {
  String: "text",
  BigInt: "bigint",
  Int: "integer",
  Boolean: "boolean",
  DateTime: "timestamp with time zone",
};

interface Field {
  readonly name: string;
  readonly type: string;
  readonly column: string;
  readonly text: string;
}

interface Model {
  readonly name: string;
  readonly table: string;
  readonly fields: ReadonlyMap<string, Field>;
  readonly text: string;
}

function parseModels(schema: string): readonly Model[] {
  return [...schema.matchAll(/^model (\w+) \{\n([^}]*)\n\}/gm)].map(([, name = "", text = ""]) => {
    const fields = [...text.matchAll(/^ {2}(\w+) +(\w+(?:\[\])?\??)(.*)$/gm)].map(
      ([, field = "", type = "", rest = ""]) => {
        const column = /@map\("(\w+)"\)/.exec(rest)?.[1] ?? field;
        return [field, { name: field, type, column, text: rest }] as const;
      },
    );
    return { name, table: /@@map\("(\w+)"\)/.exec(text)?.[1] ?? name, fields: new Map(fields), text };
  });
}

function schemaOf(models: readonly Model[]): Schema {
  const byName = new Map(models.map((model) => [model.name, model]));
  const columnsOf = (model: Model, list: string) =>
    list.split(/, */).map((field) => model.fields.get(field)?.column ?? `no field ${field}`);
  const on = (model: Model, list: string) => `${model.table} (${columnsOf(model, list).join(", ")})`;
  const scalar = (field: Field) => TYPES[field.type.replace(/[[\]?]/g, "")];
  return {
    columns: models.flatMap((model) =>
      [...model.fields.values()].flatMap((field) => {
        const type = scalar(field);
        if (type === undefined) return [];
        const list = field.type.endsWith("[]") ? "[]" : "";
        return [`${model.table}.${field.column} ${type}${list}${field.type.endsWith("?") ? " null" : ""}`];
      }),
    ),
    keys: models.flatMap((model) => [
      ...[...model.fields.values()].filter((f) => /@id\b/.test(f.text)).map((f) => on(model, f.name)),
      ...[...model.text.matchAll(/@@id\(\[(.*?)\]/g)].map(([, list = ""]) => on(model, list)),
    ]),
    uniques: models.flatMap((model) =>
      [...model.fields.values()].filter((f) => /@unique\b/.test(f.text)).map((f) => on(model, f.name)),
    ),
    references: models.flatMap((model) =>
      [...model.fields.values()].flatMap((field) => {
        const relation = /fields: \[(.*?)\], references: \[(.*?)\], onDelete: (\w+)/.exec(field.text);
        const target = byName.get(field.type.replace("?", ""));
        if (!relation || !target) return [];
        const [, from = "", to = "", onDelete] = relation;
        return [`${on(model, from)} -> ${on(target, to)} ${onDelete}`];
      }),
    ),
    indexes: models.flatMap((model) =>
      [...model.text.matchAll(/@@index\(\[(.*?)\], map: "(\w+)"/g)].map(
        ([, list = "", name]) => `${name} ${on(model, list)}`,
      ),
    ),
  };
}

async function texts(sql: string): Promise<readonly string[]> {
  const result = await database.pool.query<{ text: string }>(sql);
  return result.rows.map((row) => row.text);
}

const COLUMNS_OF = (relation: string, numbers: string) =>
  `${relation}::regclass || ' (' || (
     SELECT string_agg(attname, ', ' ORDER BY position) FROM unnest(${numbers}) WITH ORDINALITY AS n (number, position)
     JOIN pg_attribute ON attrelid = ${relation} AND attnum = number) || ')'`;

async function liveSchema(): Promise<Schema> {
  const constraints = (type: string) =>
    texts(`SELECT ${COLUMNS_OF("conrelid", "conkey")} AS text FROM pg_constraint
           WHERE contype = '${type}' AND connamespace = 'public'::regnamespace
             AND conrelid <> '_prisma_migrations'::regclass`);
  return {
    columns: await texts(`SELECT table_name || '.' || column_name || ' ' ||
        CASE data_type WHEN 'ARRAY' THEN substr(udt_name, 2) || '[]' ELSE data_type END ||
        CASE is_nullable WHEN 'YES' THEN ' null' ELSE '' END AS text
      FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> '_prisma_migrations'`),
    keys: await constraints("p"),
    uniques: await constraints("u"),
    references: await texts(`SELECT ${COLUMNS_OF("conrelid", "conkey")} || ' -> ' ||
        ${COLUMNS_OF("confrelid", "confkey")} ||
        CASE confdeltype::text WHEN 'c' THEN ' Cascade' WHEN 'a' THEN ' NoAction' ELSE ' ' || confdeltype::text END AS text
      FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace`),
    indexes: await texts(`SELECT indexrelid::regclass || ' ' || ${COLUMNS_OF("indrelid", "indkey::smallint[]")} AS text
      FROM pg_index WHERE NOT indisunique AND indrelid IN (
        SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)`),
  };
}

describe("prisma/schema.prisma", () => {
  it("says what the migrations make", async () => {
    const declared = schemaOf(parseModels(await readFile("prisma/schema.prisma", "utf8")));
    const live = await liveSchema();
    expect(live.columns.length).toBeGreaterThan(100);
    expect(declared.columns.toSorted()).toEqual(live.columns.toSorted());
    expect(declared.keys.toSorted()).toEqual(live.keys.toSorted());
    expect(declared.uniques.toSorted()).toEqual(live.uniques.toSorted());
    expect(declared.references.toSorted()).toEqual(live.references.toSorted());
    expect(declared.indexes.toSorted()).toEqual(live.indexes.toSorted());
  });

  it("gives every reference an index, so that deleting what is referred to stays quick", async () => {
    const live = await liveSchema();
    const indexed = [...live.keys, ...live.uniques, ...live.indexes.map((index) => index.replace(/^\S+ /, ""))];
    const lacking = live.references.filter((reference) => {
      const [start = ""] = reference.split(")");
      return !indexed.some((index) => index.startsWith(start));
    });
    expect(lacking).toEqual([]);
  });
});
