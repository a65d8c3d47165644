/** Tells a story on a terminal, or as plain lines where there is none. */
export interface Narrator {
  readonly heading: (text: string) => void;
  /** A paragraph, wrapped. */
  readonly say: (text: string) => void;
  /** An indented line: something that happened, or a number. */
  readonly note: (text: string) => void;
  readonly good: (text: string) => void;
  readonly bad: (text: string) => void;
  /** A progress bar that is drawn anew; without a terminal a line at every tenth. */
  readonly progress: (share: number, text: string) => void;
  /** Leaves the bar as it is: what follows stands below it. */
  readonly endProgress: () => void;
}

const WIDTH = 92;
const BAR = 30;

function wrap(text: string): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    if (line !== "" && line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line].join("\n");
}

function bar(share: number): string {
  const filled = Math.round(share * BAR);
  return `${"#".repeat(filled)}${".".repeat(BAR - filled)} ${String(Math.floor(share * 100)).padStart(3)} %`;
}

export function createNarrator(output: NodeJS.WriteStream): Narrator {
  const terminal = output.isTTY;
  const style = (code: string, text: string): string => (terminal ? `\u001b[${code}m${text}\u001b[0m` : text);
  let drawn = false;
  let tenths = -1;
  const line = (text: string): void => {
    if (drawn) output.write("\r\u001b[K");
    drawn = false;
    output.write(`${text}\n`);
  };
  const progress = (share: number, text: string): void => {
    const now = Math.min(1, Math.max(0, share));
    if (terminal) {
      output.write(`\r\u001b[K  ${bar(now)}  ${text}`.slice(0, (output.columns || WIDTH) + 4));
      drawn = true;
      return;
    }
    if (Math.floor(now * 10) <= tenths) return;
    tenths = Math.floor(now * 10);
    line(`  ${bar(now)}  ${text}`);
  };
  return {
    heading: (text) => line(`\n${style("1", text)}`),
    say: (text) => line(wrap(text)),
    note: (text) => line(`  ${text}`),
    good: (text) => line(`  ${style("32", "ok")}  ${text}`),
    bad: (text) => line(`  ${style("31", "NOT OK")}  ${text}`),
    progress,
    endProgress: () => {
      if (drawn) output.write("\n");
      drawn = false;
      tenths = -1;
    },
  };
}
