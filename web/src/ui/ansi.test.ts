import { describe, expect, test } from "vitest";
import { AnsiReader, classes, restyle } from "./ansi";

const read = (...pieces: string[]): string => {
  const reader = new AnsiReader();
  return pieces
    .flatMap((piece) => reader.read(piece))
    .map((token) =>
      "text" in token
        ? token.text
        : "sgr" in token
          ? `{${token.sgr.join(";")}}`
          : token.control === "newline"
            ? "↵"
            : "←",
    )
    .join("");
};

describe("output", () => {
  const cases: Array<[string, string[], string]> = [
    ["plain text passes", ["hello\nworld"], "hello↵world"],
    ["colours pass", ["\u001b[1;31mred\u001b[0m"], "{1;31}red{0}"],
    ["an empty colour is a reset", ["\u001b[m"], "{0}"],
    ["a colour cut in two is one", ["\u001b[3", "1mred"], "{31}red"],
    ["an escape cut from its bracket is one", ["\u001b", "[31mred"], "{31}red"],
    ["cursor movements are dropped", ["a\u001b[2Jb\u001b[10;5Hc\u001b[?25l"], "abc"],
    ["titles (OSC) are dropped", ["a\u001b]0;evil\u0007b"], "ab"],
    [
      "OSC 8 links and OSC 52 clipboards are dropped",
      ["\u001b]8;;http://evil\u001b\\x\u001b]52;c;ZXZpbA==\u0007y"],
      "xy",
    ],
    ["an OSC cut in two is dropped", ["a\u001b]0;ev", "il\u0007b"], "ab"],
    ["an OSC without an end loses its line only", ["a\u001b]0;evil\nb"], "a↵b"],
    [
      "an OSC without an end is broken off by another sequence",
      ["a\u001b]0;evil\u001b[33mb\u001b]0;evil\u001b", "[0mc"],
      "a{33}b{0}c",
    ],
    ["a string that is too long is text from there on", [`a\u001b]0;${"x".repeat(4096)}`, "yz"], "axxxxyz"],
    [
      "SOS, PM and APC are dropped in their C1 forms",
      ["a\u0098evil\u009cb\u009eevil\u001b\\c\u009fevil\u0007d"],
      "abcd",
    ],
    ["DCS, APC and PM are dropped", ["\u001bPevil\u001b\\a\u001b_evil\u001b\\b\u001b^evil\u001b\\c"], "abc"],
    ["C1 forms are dropped like their ESC forms", ["\u009b2Ja\u009d0;evil\u0007b\u0090evil\u001b\\c"], "abc"],
    ["charset switches are dropped", ["\u001b(0a\u001b)Bb"], "ab"],
    ["other controls are shown", ["a\u0008\u0007b\u0000"], "a⟨08⟩⟨07⟩b⟨00⟩"],
    ["direction tricks are shown", ["safe\u202Etxt.exe"], "safe⟨202E⟩txt.exe"],
    ["a joined picture cut at its joiner is one", ["👩", "\u200d", "💻"], "👩\u200d💻"],
    ["a Persian word cut before its joiner is one", ["می", "\u200cخواهم"], "می\u200cخواهم"],
    ["a joiner that begins a line is shown", ["👩\n\u200d💻"], "👩↵⟨200D⟩💻"],
    ["CRLF is a newline", ["a\r\nb"], "a↵b"],
    ["CRLF cut in two is a newline", ["a\r", "\nb"], "a↵b"],
    ["a lone return begins the line anew", ["10%\r20%"], "10%←20%"],
    ["HTML is text", ["<script>alert(1)</script>"], "<script>alert(1)</script>"],
  ];
  test.each(cases)("%s", (_name, pieces, expected) => expect(read(...pieces)).toBe(expected));
});

describe("colours", () => {
  const style = (...codes: number[]): string => classes(restyle({}, codes));
  test("become classes of the theme", () => {
    expect(style(1, 31)).toBe("fg-1 bold");
    expect(style(92, 44)).toBe("fg-10 bg-4");
    expect(style(7)).toBe("fg-bg bg-fg");
  });
  test("beyond sixteen become the nearest of the sixteen", () => {
    expect(style(38, 5, 196)).toBe("fg-9");
    expect(style(38, 2, 0, 200, 0)).toBe("fg-2");
    expect(style(48, 5, 232)).toBe("bg-0");
  });
  test("are reset", () => expect(style(1, 31, 0)).toBe(""));
});
