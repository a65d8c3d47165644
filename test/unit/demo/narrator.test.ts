import { describe, expect, it } from "vitest";
import { createNarrator } from "../../../demo/narrator.ts";

interface Heard {
  readonly output: NodeJS.WriteStream;
  readonly text: () => string;
}

function listen(isTTY: boolean): Heard {
  const heard: string[] = [];
  const output = { isTTY, columns: 100, write: (text: string) => heard.push(text) > 0 };
  return { output: output as unknown as NodeJS.WriteStream, text: () => heard.join("") };
}

describe("createNarrator", () => {
  it("writes plain lines where there is no terminal, one at every tenth of the progress", () => {
    const { output, text } = listen(false);
    const narrator = createNarrator(output);
    narrator.heading("Title");
    for (let percent = 0; percent <= 30; percent++) narrator.progress(percent / 100, `${percent} events`);
    narrator.endProgress();
    narrator.good("done");
    const controls = text()
      .split("")
      .filter((character) => character < " " && character !== "\n");
    expect(controls).toEqual([]);
    expect(text().match(/ %/g)).toHaveLength(4);
    expect(text().endsWith("  ok  done\n")).toBe(true);
  });

  it("draws over its bar on a terminal, and leaves the line before it says something", () => {
    const { output, text } = listen(true);
    const narrator = createNarrator(output);
    narrator.progress(0.5, "half");
    narrator.note("news");
    const clear = "\r\u001b[K";
    expect(text().split(clear)).toEqual(["", `  ${"#".repeat(15)}${".".repeat(15)}  50 %  half`, "  news\n"]);
  });

  it("wraps paragraphs", () => {
    const { output, text } = listen(false);
    createNarrator(output).say("word ".repeat(50));
    expect(
      Math.max(
        ...text()
          .split("\n")
          .map((line) => line.length),
      ),
    ).toBeLessThanOrEqual(92);
  });
});
