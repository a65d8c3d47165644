import { openRoute } from "./route.ts";

/** `r0.6.1` and the versions of the specification whose endpoints, as far as we have them, behave as written. */
const VERSIONS = ["r0.6.1", ...Array.from({ length: 12 }, (_, minor) => `v1.${minor + 1}`)] as const;

/** @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientversions */
export const versionsRoutes = [
  openRoute("GET /_matrix/client/versions", async () => ({ versions: VERSIONS, unstable_features: {} })),
];
