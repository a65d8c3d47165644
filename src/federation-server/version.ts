import { openEndpoint } from "./endpoint.ts";
import type { Endpoint } from "./endpoint.ts";

/** What we tell other servers that we are; the version is package.json's (a test compares them). */
export const IMPLEMENTATION = { name: "Fastjoin", version: "0.1.0" } as const;

/** @see https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1version */
export const versionEndpoints: readonly Endpoint[] = [
  openEndpoint("GET /_matrix/federation/v1/version", async () => ({ server: IMPLEMENTATION })),
];
