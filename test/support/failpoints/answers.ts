import type { Failpoint } from "../../../src/rooms/failpoints.ts";

/** The answers that others rely on: who has been given one does not ask again. */
export const ANSWERS = {
  "answer a client's join": { method: "POST", path: /^\/_matrix\/client\/v3\/join\// },
  "answer a client's message": { method: "PUT", path: /^\/_matrix\/client\/v3\/rooms\/[^/]+\/send\// },
  "answer a client's leave": { method: "POST", path: /^\/_matrix\/client\/v3\/rooms\/[^/]+\/leave/ },
  "answer a transaction": { method: "PUT", path: /^\/_matrix\/federation\/v1\/send\// },
  "answer an invitation": { method: "PUT", path: /^\/_matrix\/federation\/v[12]\/invite\// },
  "answer a server's join": { method: "PUT", path: /^\/_matrix\/federation\/v[12]\/send_join\// },
} as const satisfies Readonly<Record<string, { readonly method: string; readonly path: RegExp }>>;

export type Answer = keyof typeof ANSWERS;

/** Every place of the product at which a process can be stopped: its own failpoints, and both sides of an answer. */
export type Point = Failpoint | `before: ${Answer}` | `after: ${Answer}`;

export function answerTo(method: string, path: string): Answer | undefined {
  const names = Object.keys(ANSWERS) as Answer[];
  return names.find((name) => ANSWERS[name].method === method && ANSWERS[name].path.test(path));
}
