import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { isIP } from "node:net";
import { generate } from "selfsigned";
import type { ServerName } from "../matrix/identifiers.ts";
import type { Config } from "./config.ts";
import { readOrCreateSecretFile } from "./secret-file.ts";

/** PEM texts. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

const TEN_YEARS_MS = 10 * 365 * 24 * 3600 * 1000;

async function makeSelfSigned(serverName: ServerName): Promise<string> {
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

/** The federation listener's certificate; undefined where a proxy ends TLS. */
export async function loadFederationCertificate(
  config: Pick<Config, "federationTls" | "dataDir" | "serverName">,
): Promise<Certificate | undefined> {
  const tls = config.federationTls;
  switch (tls.kind) {
    case "off":
      return undefined;
    case "files": {
      const [cert, key] = await Promise.all([readFile(tls.certFile, "utf8"), readFile(tls.keyFile, "utf8")]);
      return { cert, key };
    }
    case "self-signed": {
      // A file for each name: a certificate made for another name is of no use.
      const path = join(config.dataDir, `self-signed-${config.serverName.replaceAll(/[^A-Za-z0-9.-]/g, "_")}.pem`);
      return splitPem(await readOrCreateSecretFile(path, () => makeSelfSigned(config.serverName)));
    }
  }
}
