import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { bytes, count, duration, span } from "./format";
import { commandQuote, shellQuote, visible, visibleLine, withoutTricks } from "./text";

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

test.each([
  ["a family", "👨‍👩‍👧"],
  ["a profession with a skin", "👩🏽‍💻 🏳️‍🌈"],
  ["variations of pictures and key caps", "⚠️ ❤︎ 1️⃣"],
  ["the flag of a region", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"],
  ["a Persian word", "می‌خواهم"],
  ["a vowelled Arabic word", "كِ‌تَ‌ب"],
  ["an Indic conjunct", "क्‍ष র‍্য ක්‍ෂ"],
  ["a variant of a Han letter", "葛\u{e0100}"],
])("the joiners of %s stay", (_name, text) => {
  expect(visible(text)).toBe(text);
  expect(withoutTricks(text)).toBe(text);
});

test.each([
  ["joiners in Latin words", "ad\u200dmin\u200c", "ad⟨200D⟩min⟨200C⟩"],
  ["a joiner between a picture and a letter", "🍓\u200da", "🍓⟨200D⟩a"],
  ["a second joiner", "👩\u200d\u200d💻", "👩⟨200D⟩⟨200D⟩💻"],
  ["a variation of nothing", "admin\ufe0f", "admin⟨FE0F⟩"],
  ["tags that hide text", "hi\u{e0068}\u{e0069}", "hi⟨E0068⟩⟨E0069⟩"],
  ["direction marks in a Persian word", "می\u200eخ\u202eواهم", "می⟨200E⟩خ⟨202E⟩واهم"],
  ["what else is invisible", "a\u00adb\u2062c\u3164d\ufeff", "a⟨AD⟩b⟨2062⟩c⟨3164⟩d⟨FEFF⟩"],
])("%s are shown", (_name, text, expected) => expect(visible(text)).toBe(expected));

const quantities = JSON.parse(
  readFileSync(new URL("../../../tests/fixtures/quantities.json", import.meta.url), "utf8"),
) as Record<"bytes" | "milliseconds", Array<[number, string]>>;
test.each(quantities.bytes)("%d bytes are %s, as in the controller's terminal", (value, text) =>
  expect(bytes(value)).toBe(text),
);
test.each(quantities.milliseconds)("%d ms are %s, as in the controller's terminal", (value, text) =>
  expect(duration(value)).toBe(text),
);

test("spans and counts are short", () => {
  expect([8, 60, 3 * 3600, 41 * 86_400].map(span)).toEqual(["8s", "1m", "3h", "41d"]);
  expect([0, 1, 25_000].map((value) => count(value, "machine"))).toEqual([
    "0 machines",
    "1 machine",
    "25,000 machines",
  ]);
});
