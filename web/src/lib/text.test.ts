import { expect, test } from "vitest";
import { bytes, duration, span } from "./format";
import { commandQuote, shellQuote, visible, visibleLine } from "./text";

test.each([
  ["pi-1", "pi-1"],
  ["Rack Pi 1", "'Rack Pi 1'"],
  ["it's; rm -rf $HOME", `'it'\\''s; rm -rf $HOME'`],
  ["", "''"],
])("shell word %s", (word, expected) => expect(shellQuote(word)).toBe(expected));

test.each([
  ["uptime", "uptime"],
  ["Rack Pi 1", '"Rack Pi 1"'],
  ['say "hi"', '"say \\"hi\\""'],
])("terminal word %s", (word, expected) => expect(commandQuote(word)).toBe(expected));

test("controls and direction tricks are shown", () => {
  expect(visible("a\u202eb\u0007\u200bc")).toBe("a⟨202E⟩b⟨07⟩⟨200B⟩c");
  expect(visible("Gärtnerei 温室 · ½")).toBe("Gärtnerei 温室 · ½");
});

test("a name stays in its line", () => expect(visibleLine("Nest\r\nEVIL\u001b[2J")).toBe("Nest EVIL⟨1B⟩[2J"));

test("numbers are short", () => {
  expect([0, 999, 1830, 31_268_536_320].map(bytes)).toEqual(["0 B", "999 B", "1.8 kB", "31.3 GB"]);
  expect([8, 60, 3 * 3600, 41 * 86_400].map(span)).toEqual(["8s", "1m", "3h", "41d"]);
  expect([38, 12_400, 245_000, 4_320_000].map(duration)).toEqual(["38 ms", "12.4 s", "4:05 min", "1:12 h"]);
});
