import { readFile } from "node:fs/promises";
import { parse } from "yaml";
import { z } from "zod";
import type { ApplicationService, Namespace } from "../appservice-client/registration.ts";
import { ConfigError, type Config } from "./config.ts";
import { SETTINGS } from "./settings.ts";

/** What a field of a registration may hold, for the error message. */
const ALLOWED: Readonly<Record<string, string>> = {
  "": "a YAML mapping with id, url, as_token, hs_token, sender_localpart and namespaces",
  id: "a text that no other registration has",
  url: "an http or https URL without a query, or null for a service that nothing is sent to",
  as_token: "a text without spaces that no other registration has",
  hs_token: "a text without spaces",
  sender_localpart: "the local part of a user id, without a colon or a space, that no other registration has",
  namespaces: "a mapping with any of users, aliases and rooms",
  "namespaces.users": "a list of {exclusive, regex}",
  "namespaces.aliases": "a list of {exclusive, regex}",
  "namespaces.rooms": "a list of {exclusive, regex}",
  exclusive: "true or false",
  regex: "a regular expression",
  rate_limited: "true or false",
  receive_ephemeral: "true or false",
  protocols: "a list of names",
};

/** What must not be shown where it is wrong. */
const SECRET: ReadonlySet<string> = new Set(["as_token", "hs_token"]);

const token = z.string().regex(/^\S+$/);

function isBaseUrl(text: string): boolean {
  return /^https?:\/\/[^?#]+$/.test(text) && URL.canParse(text);
}

const pattern = z.string().transform((text, context) => {
  try {
    return new RegExp(`^(?:${text})`);
  } catch (error) {
    context.addIssue({ code: "custom", message: error instanceof Error ? error.message : String(error) });
    return z.NEVER;
  }
});

const namespace = z
  .object({ exclusive: z.boolean(), regex: pattern })
  .transform(({ exclusive, regex }): Namespace => ({ exclusive, pattern: regex }));
const namespaces = z.array(namespace).nullish();

/** @see https://spec.matrix.org/v1.19/application-service-api/#registration */
const registration = z
  .object({
    id: z.string().min(1).max(255),
    url: z.string().refine(isBaseUrl).nullable(),
    as_token: token,
    hs_token: token,
    // Wider than what people may register: registrations are often made with random letters.
    sender_localpart: z.string().regex(/^[!-9;-~]{1,200}$/),
    namespaces: z.object({ users: namespaces, aliases: namespaces, rooms: namespaces }),
    // Requests are never limited here, so that either value holds.
    rate_limited: z.boolean().optional(),
    receive_ephemeral: z.boolean().optional(),
    protocols: z.array(z.string()).nullish(),
  })
  .transform((read): ApplicationService => ({
    id: read.id,
    url: read.url?.replace(/\/+$/, "") ?? null,
    asToken: read.as_token,
    hsToken: read.hs_token,
    senderLocalpart: read.sender_localpart,
    receiveEphemeral: read.receive_ephemeral ?? false,
    namespaces: {
      users: read.namespaces.users ?? [],
      aliases: read.namespaces.aliases ?? [],
      rooms: read.namespaces.rooms ?? [],
    },
  }));

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (held, key) =>
      typeof held === "object" && held !== null ? (held as Record<PropertyKey, unknown>)[key] : undefined,
    value,
  );
}

/** `file: field holds …, which can't be used (why); allowed: …` */
function complaint(file: string, document: unknown, issue: z.core.$ZodIssue): string {
  const { path } = issue;
  const last = String(path.at(-1) ?? "");
  const allowed = ALLOWED[path.join(".")] ?? ALLOWED[last] ?? ALLOWED["namespaces.users"];
  const held = valueAt(document, path);
  const shown = SECRET.has(last) ? "a value that is not shown here" : JSON.stringify(held);
  const cause = issue.code === "custom" && last === "regex" ? `, which can't be used (${issue.message})` : "";
  const field = path.length === 0 ? "the file" : path.join(".");
  return `${file}: ${field} ${held === undefined ? "is missing" : `holds ${shown}${cause}`}; allowed: ${allowed}`;
}

async function readRegistration(file: string): Promise<ApplicationService> {
  let document: unknown;
  try {
    document = parse(await readFile(file, "utf8"));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const { variable, allowed } = SETTINGS.applicationServices;
    throw new ConfigError(`${variable} names ${file}, which can't be read as YAML (${why}); allowed: ${allowed}`, {
      cause: error,
    });
  }
  const { success, data, error } = registration.safeParse(document);
  if (!success) throw new ConfigError(error.issues.map((issue) => complaint(file, document, issue)).join("\n"));
  return data;
}

/** The homeserver must see to it that ids and tokens tell services apart. */
function requireDifferent(files: readonly string[], services: readonly ApplicationService[]): void {
  const complaints = services.flatMap((service, index) => {
    const same = (field: "id" | "asToken" | "senderLocalpart", name: string): readonly string[] => {
      const first = services.findIndex((other) => other[field] === service[field]);
      const shown = SECRET.has(name) ? "a value that is not shown here" : JSON.stringify(service[field]);
      return first === index
        ? []
        : [`${files[index]}: ${name} holds ${shown}, as ${files[first]} does; allowed: ${ALLOWED[name]}`];
    };
    return [...same("id", "id"), ...same("asToken", "as_token"), ...same("senderLocalpart", "sender_localpart")];
  });
  if (complaints.length > 0) throw new ConfigError(complaints.join("\n"));
}

/**
 * Reads and checks the registration files that the setting names.
 *
 * @throws ConfigError that names the file, the field, what it holds and what is allowed
 */
export async function loadApplicationServices({
  applicationServices: files,
}: Pick<Config, "applicationServices">): Promise<readonly ApplicationService[]> {
  const services: ApplicationService[] = [];
  for (const file of files) services.push(await readRegistration(file));
  requireDifferent(files, services);
  return services;
}
