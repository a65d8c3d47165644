import type { Point } from "./answers.ts";

/** What a test tells a process of its own, by the channel between them. */
export type Order =
  /** Begin: all is loaded, and nothing done yet. */
  | { readonly order: "begin" }
  /** At this point end yourself at once, or wait to be let go. */
  | { readonly order: "arm"; readonly point: Point; readonly how: How }
  | { readonly order: "disarm" }
  | { readonly order: "go on" }
  /** Shifts the process's clock. */
  | { readonly order: "clock"; readonly aheadMs: number };

export type How = "die" | "hold";

/** What it tells the test. */
export type Report =
  | { readonly report: "loaded" }
  | { readonly report: "ordered" }
  | { readonly report: "reached"; readonly point: Point }
  | { readonly report: "held"; readonly point: Point };
