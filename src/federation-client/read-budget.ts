import type { ServerName } from "../matrix/identifiers.ts";
import { FederationFailure } from "./failures.ts";

/** What several answers may hold together, in bytes once they are decoded. */
export interface ReadBudget {
  /** @throws FederationFailure once it is used up, which is the fault of this server */
  take(server: ServerName, bytes: number): void;
}

export function createReadBudget(maxBytes: number): ReadBudget {
  let left = maxBytes;
  return {
    take(server, bytes) {
      left -= bytes;
      if (left >= 0) return;
      const reason = `its answers to one attempt are larger than ${maxBytes} bytes together`;
      throw new FederationFailure({ kind: "bad-response", server, reason });
    },
  };
}

export async function* withinBudget(
  server: ServerName,
  body: AsyncIterable<Uint8Array>,
  budget: ReadBudget,
): AsyncGenerator<Uint8Array, void, void> {
  for await (const chunk of body) {
    budget.take(server, chunk.byteLength);
    yield chunk;
  }
}
