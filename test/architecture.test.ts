import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseSync } from "oxc-parser";
import { describe, expect, it } from "vitest";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");

/**
 * Layer -> the layers it may import. An allow-list: a new folder fails until it is placed here.
 * "layer/file" allows one file of a layer; "type:layer" allows its types only.
 */
const allowed: Readonly<Record<string, readonly string[]>> = {
  "src/matrix": [],
  "src/federation-api": ["src/matrix"],
  "src/storage": ["src/matrix", "src/federation-api"],
  "src/federation-client": ["src/matrix", "src/federation-api", "src/storage"],
  "src/appservice-client": ["src/matrix"],
  "src/rooms": ["src/matrix", "src/federation-api", "src/storage", "src/federation-client", "src/appservice-client"],
  "src/federation-server": ["src/matrix", "src/federation-api", "src/storage", "src/rooms", "src/federation-client"],
  "src/client-api": [
    "src/matrix",
    "src/federation-api",
    "src/storage",
    "src/rooms",
    "src/federation-client",
    "src/appservice-client",
  ],
  "src/operator": [
    "src/matrix",
    "src/federation-api",
    "src/storage",
    "src/rooms",
    "src/federation-client",
    "workflows/contract.ts",
  ],
  activities: [
    "src/matrix",
    "src/federation-api",
    "src/storage",
    "src/rooms",
    "src/federation-client",
    "workflows/contract.ts",
  ],
  workflows: ["type:activities"],
  "src/main": [
    "src/matrix",
    "src/federation-api",
    "src/storage",
    "src/federation-client",
    "src/appservice-client",
    "src/rooms",
    "src/federation-server",
    "src/client-api",
    "src/operator",
    "activities",
    "workflows/contract.ts",
  ],
};

/**
 * The folders of the use cases, in the order in which they stand on each other: each imports only those before it. What
 * several need stands in none of them, and imports none.
 */
const foldersOfRooms: readonly string[] = [
  "devices",
  "events",
  "fetch",
  "read",
  "edus",
  "sync",
  "appservices",
  "accounts",
  "resync",
  "receive",
  "send",
  "serve",
  "join",
  "upkeep",
];

/** Packages that a layer may import; layers that are not named may import any. */
const allowedPackages: Readonly<Record<string, readonly string[]>> = {
  "src/matrix": ["node:crypto", "sodium-native", "lossless-json"],
  workflows: ["@temporalio/workflow", "@temporalio/common"],
};

/** A package that only one file of the whole product may import. */
const onlyIn: Readonly<Record<string, readonly string[]>> = {
  "sodium-native": ["src/matrix/ed25519.ts"],
};

interface Import {
  readonly file: string;
  readonly source: string;
  readonly typeOnly: boolean;
}

function sourceFiles(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).split(sep).join("/"))
    .filter((file) => !file.startsWith("src/storage/generated/"))
    .toSorted();
}

const files = ["src", "workflows", "activities"].flatMap(sourceFiles);

function importsOf(file: string): Import[] {
  const { module, errors } = parseSync(join(root, file), readFileSync(join(root, file), "utf8"));
  if (errors.length > 0) {
    throw new Error(`${file}: ${errors[0]?.message}`);
  }
  const imports = module.staticImports.map(({ moduleRequest, entries }) => ({
    file,
    source: moduleRequest.value,
    typeOnly: entries.length > 0 && entries.every((entry) => entry.isType),
  }));
  const reexports = module.staticExports.flatMap(({ entries }) =>
    entries.flatMap((entry) =>
      entry.moduleRequest ? [{ file, source: entry.moduleRequest.value, typeOnly: entry.isType }] : [],
    ),
  );
  const dynamic = module.dynamicImports.map(({ moduleRequest }) => ({
    file,
    source: readFileSync(join(root, file), "utf8")
      .slice(moduleRequest.start, moduleRequest.end)
      .replaceAll(/["'`]/g, ""),
    typeOnly: false,
  }));
  return [...imports, ...reexports, ...dynamic];
}

function layerOf(file: string): string {
  const [first, second] = file.split("/");
  return first === "src" ? `${first}/${second}` : (first ?? "");
}

function packageOf(source: string): string {
  return source
    .split("/")
    .slice(0, source.startsWith("@") ? 2 : 1)
    .join("/");
}

/** What is wrong with one import, or undefined. */
function breach({ file, source, typeOnly }: Import): string | undefined {
  const layer = layerOf(file);
  if (!source.startsWith(".")) {
    const packages = allowedPackages[layer];
    return packages && !packages.includes(packageOf(source)) ? `${file} imports ${source}` : undefined;
  }
  const target = relative(root, resolve(root, dirname(file), source))
    .split(sep)
    .join("/");
  const targetLayer = layerOf(target);
  const permits = allowed[layer] ?? [];
  const fine =
    targetLayer === layer ||
    permits.includes(targetLayer) ||
    permits.includes(target) ||
    (typeOnly && permits.includes(`type:${targetLayer}`));
  return fine ? undefined : `${file} imports ${target}`;
}

/** The folder of src/rooms that a file is in; "": of none; undefined: it is not of src/rooms. */
function folderOfRooms(file: string): string | undefined {
  const [first, second, folder, ...rest] = file.split("/");
  if (first !== "src" || second !== "rooms") return undefined;
  return rest.length === 0 ? "" : folder;
}

/** Whether an import within src/rooms goes to a folder that stands above its own, or beside it. */
function goesUpwards({ file, source }: Import): boolean {
  const [from, to] = [file, join(dirname(file), source)].map((one) => folderOfRooms(one.split(sep).join("/")));
  if (!source.startsWith(".") || from === undefined || to === undefined || to === "" || to === from) return false;
  return from === "" || foldersOfRooms.indexOf(to) > foldersOfRooms.indexOf(from);
}

const imports = files.flatMap(importsOf);

describe("layers", () => {
  it("are all placed in the table", () => {
    expect([...new Set(files.map(layerOf))].filter((layer) => !(layer in allowed))).toEqual([]);
  });

  it("import only what the table allows", () => {
    expect(imports.map(breach).filter((found) => found !== undefined)).toEqual([]);
  });

  it("stand on each other in one order within the use cases", () => {
    const folders = new Set(files.map(folderOfRooms).filter((folder) => folder !== undefined && folder !== ""));
    expect([...folders].toSorted()).toEqual(foldersOfRooms.toSorted());
    expect(imports.filter(goesUpwards).map(({ file, source }) => `${file} imports ${source}`)).toEqual([]);
  });

  it("keep native cryptography in one file each", () => {
    const strays = imports.filter(({ file, source }) => onlyIn[source] && !onlyIn[source].includes(file));
    const hashing = imports.filter(({ file, source }) => layerOf(file) === "src/matrix" && source === "node:crypto");
    expect(strays).toEqual([]);
    expect([...new Set(hashing.map(({ file }) => file))].filter((file) => file !== "src/matrix/hashes.ts")).toEqual([]);
  });
});

describe("the protocol core", () => {
  const core = files.filter((file) => layerOf(file) === "src/matrix");

  it("is synchronous", () => {
    const asynchronous = core.filter((file) => {
      const { program } = parseSync(join(root, file), readFileSync(join(root, file), "utf8"));
      const text = JSON.stringify(program, (_key, value: unknown) =>
        typeof value === "bigint" ? String(value) : value,
      );
      return text.includes('"async":true') || text.includes('"type":"AwaitExpression"');
    });
    expect(asynchronous).toEqual([]);
  });

  it("knows no clock and no chance", () => {
    const impure = core.filter((file) =>
      /\bDate\.now\(|\bnew Date\(\)|\bMath\.random\(/.test(readFileSync(join(root, file), "utf8")),
    );
    expect(impure).toEqual([]);
  });
});

describe("names", () => {
  it("say what a file holds", () => {
    const vague = /(^|\/|-)(utils?|helpers?|common|manager|service)\.ts$/;
    expect(files.filter((file) => vague.test(file))).toEqual([]);
  });
});
