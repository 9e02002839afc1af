import { describe, expect, test } from "vitest";
import type { Line } from "./output";
import { cut, Wrapped } from "./wrap";

const plain = (text: string, columns: number): string[] =>
  cut([{ text, class: "" }], columns).map((row) => row.map((stretch) => stretch.text).join(""));
const line = (number: number, text: string): Line => ({
  number,
  stretches: [{ text, class: "" }],
  stderr: false,
  mark: false,
});
const rows = (wrapped: Wrapped, lines: Line[]): string[] =>
  wrapped.update(lines).map((row) => `${row.key} ${row.stretches.map((stretch) => stretch.text).join("")}`);

describe("a long line", () => {
  test.each<[string, number, string[]]>([
    ["short", 20, ["short"]],
    ["", 20, [""]],
    ["exactly ten", 11, ["exactly ten"]],
    ["Server listening on port 22.", 20, ["Server listening on ", "port 22."]],
    ["a bbbbbbbbbbbbbbbbbb", 10, ["a bbbbbbbb", "bbbbbbbbbb"]],
    ["0123456789abcdef", 10, ["0123456789", "abcdef"]],
    ["日本語日本語", 4, ["日本", "語日", "本語"]],
    ["a\u0301".repeat(4), 4, ["a\u0301".repeat(4)]],
    ["ab\tcdef", 10, ["ab\tcd", "ef"]],
    ["📦📦📦", 4, ["📦📦", "📦"]],
  ])("%j in %d places is cut into %j", (text, columns, expected) => expect(plain(text, columns)).toEqual(expected));
  test("loses nothing, whatever its width", () => {
    const text = "Nov 22 21:01:44 pi-4 sshd[9121]: Accepted publickey for backup from 10.0.0.8 📦 日本 end";
    for (let columns = 2; columns < 100; columns += 1) expect(plain(text, columns).join("")).toBe(text);
  });
  test("keeps its colours", () => {
    expect(
      cut(
        [
          { text: "red", class: "fg-1" },
          { text: "green", class: "fg-2" },
        ],
        5,
      ),
    ).toEqual([
      [
        { text: "red", class: "fg-1" },
        { text: "gr", class: "fg-2" },
      ],
      [{ text: "een", class: "fg-2" }],
    ]);
  });
});

describe("output that comes", () => {
  test("is wrapped on from where it was: the newest line may grow, the oldest may go", () => {
    const wrapped = new Wrapped(4);
    const [first, second] = [line(1, "abcdef"), line(2, "gh")];
    expect(rows(wrapped, [first, second])).toEqual(["1.0 abcd", "1.1 ef", "2.0 gh"]);
    second.stretches.push({ text: "ijk", class: "" });
    expect(rows(wrapped, [first, second, line(3, "l")])).toEqual(["1.0 abcd", "1.1 ef", "2.0 ghij", "2.1 k", "3.0 l"]);
    expect(rows(wrapped, [second, line(3, "lm"), line(4, "n")])).toEqual(["2.0 ghij", "2.1 k", "3.0 lm", "4.0 n"]);
    expect(rows(wrapped, [line(9, "z")])).toEqual(["9.0 z"]);
  });
});
