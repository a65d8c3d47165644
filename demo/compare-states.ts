/** Two views of a room's state, by (type, state key) joined by U+001F: where they differ. */
export interface Comparison {
  readonly compared: number;
  /** Keys that one side lacks or holds another event for. */
  readonly different: readonly string[];
}

export function compareStates(ours: ReadonlyMap<string, string>, theirs: ReadonlyMap<string, string>): Comparison {
  const keys = new Set([...ours.keys(), ...theirs.keys()]);
  const different = [...keys].filter((key) => ours.get(key) !== theirs.get(key));
  return { compared: keys.size, different };
}
