import type { Connections } from "./connections.ts";
import { decodeBody, ignoreLateErrors } from "../federation-api/decode-body.ts";
import type { WellKnownAnswer } from "./well-known.ts";

const MAX_REDIRECTS = 5;
const MAX_BYTES = 50 * 1024;
const TIMEOUT_MS = 10_000;

/**
 * Asks a host for its delegation, following redirects to other https addresses; each of them is held to the blocklist,
 * as every connection is.
 *
 * @param url the file's address; in production always `https://{host}/.well-known/matrix/server`
 * @throws if the host can't be asked or its answer can't be read
 */
export async function fetchWellKnown(connections: Connections, url: URL): Promise<WellKnownAnswer> {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  let target = url;
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
    const host = target.hostname.replace(/^\[(.*)\]$/, "$1");
    const dispatcher = connections.dispatcherFor({
      host,
      port: target.port === "" ? 443 : Number(target.port),
      certificateName: host,
    });
    const { statusCode, headers, body } = await dispatcher.request({
      method: "GET",
      path: `${target.pathname}${target.search}`,
      headers: { accept: "application/json" },
      headersTimeout: TIMEOUT_MS,
      bodyTimeout: TIMEOUT_MS,
      signal,
    });
    ignoreLateErrors(body);
    const location = headerValue(headers["location"]);
    if (statusCode < 300 || statusCode > 399 || location === undefined) {
      const chunks: Uint8Array[] = [];
      for await (const chunk of decodeBody(body, headerValue(headers["content-encoding"]) ?? "", MAX_BYTES)) {
        chunks.push(chunk);
      }
      return {
        status: statusCode,
        cacheControl: headerValue(headers["cache-control"]),
        expires: headerValue(headers["expires"]),
        body: Buffer.concat(chunks).toString("utf8"),
      };
    }
    body.destroy();
    target = new URL(location, target);
    if (target.protocol !== "https:") throw new Error(`the well-known file redirects to ${target.protocol}`);
  }
  throw new Error(`the well-known file redirects more than ${MAX_REDIRECTS} times`);
}

/** Of a repeated header, the first. */
export function headerValue(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header;
}
