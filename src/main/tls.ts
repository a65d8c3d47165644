import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { isIP } from "node:net";
import { createSecureContext } from "node:tls";
import type { ServerName } from "../matrix/identifiers.ts";
import { ConfigError, type Config } from "./config.ts";
import { readOrCreateSecretFile } from "./secret-file.ts";
import { SETTINGS } from "./settings.ts";

/** PEM texts. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

const TEN_YEARS_MS = 10 * 365 * 24 * 3600 * 1000;

async function makeSelfSigned(serverName: ServerName): Promise<string> {
  // Slow to load, needed once: it must not hold up each start of each process.
  const { generate } = await import("selfsigned");
  const host = serverName.replace(/:\d+$/, "").replaceAll(/[[\]]/g, "");
  const name = isIP(host) ? { type: 7 as const, ip: host } : { type: 2 as const, value: host };
  const { cert, private: key } = await generate([{ name: "commonName", value: host }], {
    keyType: "ec",
    curve: "P-256",
    algorithm: "sha256",
    notAfterDate: new Date(Date.now() + TEN_YEARS_MS),
    extensions: [
      { name: "basicConstraints", cA: true },
      { name: "subjectAltName", altNames: [name] },
    ],
  });
  return `${cert.trim()}\n${key.trim()}\n`;
}

function splitPem(text: string): Certificate {
  const blocks = text.match(/-----BEGIN ([A-Z ]+)-----[\s\S]+?-----END \1-----\n?/g) ?? [];
  const cert = blocks.find((block) => block.includes("BEGIN CERTIFICATE"));
  const key = blocks.find((block) => block.includes("PRIVATE KEY"));
  if (cert === undefined || key === undefined) {
    throw new Error("expected a certificate and a private key in PEM form");
  }
  return { cert, key };
}

function inWords(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * The certificate and the key of two PEM files.
 *
 * @throws ConfigError if they can't be read, or can't be used together
 */
export async function loadCertificateFiles(
  files: Extract<Config["federationTls"], { readonly kind: "files" }>,
): Promise<Certificate> {
  const { certFile, keyFile } = files;
  try {
    const [cert, key] = await Promise.all([readFile(certFile, "utf8"), readFile(keyFile, "utf8")]);
    createSecureContext({ cert, key });
    return { cert, key };
  } catch (error) {
    const { variable, allowed } = SETTINGS.federationTls;
    const held = JSON.stringify(`${certFile},${keyFile}`);
    const text = `${variable} holds ${held}, which can't be used (${inWords(error)}); allowed: ${allowed}`;
    throw new ConfigError(text, { cause: error });
  }
}

/**
 * The PEM text of the authorities to trust besides the usual ones.
 *
 * @throws ConfigError if the file can't be read, or holds no certificate
 */
export async function loadAuthorities(caFile: string | undefined): Promise<string | undefined> {
  if (caFile === undefined) {
    return undefined;
  }
  try {
    const text = await readFile(caFile, "utf8");
    new X509Certificate(text);
    return text;
  } catch (error) {
    const { variable, allowed } = SETTINGS.caFile;
    const held = JSON.stringify(caFile);
    const text = `${variable} holds ${held}, which can't be used (${inWords(error)}); allowed: ${allowed}`;
    throw new ConfigError(text, { cause: error });
  }
}

/** The federation listener's certificate; undefined where a proxy ends TLS. */
export async function loadFederationCertificate(
  config: Pick<Config, "federationTls" | "dataDir" | "serverName">,
): Promise<Certificate | undefined> {
  const tls = config.federationTls;
  switch (tls.kind) {
    case "off":
      return undefined;
    case "files":
      return loadCertificateFiles(tls);
    case "self-signed": {
      // A file for each name: a certificate made for another name is of no use.
      const path = join(config.dataDir, `self-signed-${config.serverName.replaceAll(/[^A-Za-z0-9.-]/g, "_")}.pem`);
      return splitPem(await readOrCreateSecretFile(path, () => makeSelfSigned(config.serverName)));
    }
  }
}
