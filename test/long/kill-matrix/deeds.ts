import type { Stage } from "./stage.ts";

/** Something that users, operators and other servers do, and how it must end. */
export interface Deed {
  readonly name: string;
  /** Done to its end, however often anything dies meanwhile. @returns what must be the same each time */
  readonly run: (stage: Stage) => Promise<unknown>;
}
