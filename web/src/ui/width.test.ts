import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { after, cut, padded } from "../terminal/paint";
import { clusters, columns } from "./width";

const widths = JSON.parse(
  readFileSync(new URL("../../../tests/fixtures/widths.json", import.meta.url), "utf8"),
) as Array<[string, number]>;

describe("text", () => {
  test.each(widths)("%j takes %d columns, as in the controller's tables", (text, width) =>
    expect(columns(text)).toBe(width),
  );
  test.each(widths)("%j loses nothing in clusters", (text) =>
    expect(
      clusters(text)
        .map((each) => each.text)
        .join(""),
    ).toBe(text),
  );
  test.each([
    ["a👩‍💻b", 3, "a…"],
    ["a👩‍💻b", 4, "a👩‍💻b"],
    ["👩‍💻👩‍💻", 3, "👩‍💻…"],
    ["漢字漢字", 4, "漢…"],
  ])("%j is cut to %d columns as %j, never inside a picture", (text, width, expected) =>
    expect(cut(text, width)).toBe(expected),
  );
  test("is filled up by what it takes", () => expect(padded("👩‍💻", 4)).toBe("👩‍💻  "));
});

describe("the cursor", () => {
  test.each<[string, number, number, number, number]>([
    ["abc", 8, 20, 0, 11],
    ["👩‍💻", 8, 20, 0, 10],
    ["🍓🍓", 8, 11, 1, 2],
    ["abc", 8, 11, 0, 11],
    ["漢字漢字", 0, 5, 1, 4],
  ])("after %j that began in column %d of %d is in row %d, column %d", (text, from, width, row, column) =>
    expect(after(text, from, width)).toEqual({ row, column }),
  );
});
