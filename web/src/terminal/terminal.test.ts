import { describe, expect, test } from "vitest";
import { History } from "../live/history";
import { Answer } from "./answer";
import { progress } from "./blocks";
import { LineEditor } from "./line-editor";
import { columns, cut, Framed, fitted, plainText, wrapped } from "./paint";

function typed(...keys: string[]): LineEditor {
  const editor = new LineEditor(new History(["old", "oldest"]));
  for (const key of keys) editor.feed(key);
  return editor;
}

describe("the line", () => {
  const cases: Array<[string, string[], string, number]> = [
    ["takes text", ["task", " ", "list"], "task list", 9],
    ["erases before the cursor", ["tasks", "\u007f"], "task", 4],
    ["erases a whole character", ["a👩‍👩‍👧", "\u007f"], "a", 1],
    ["moves and inserts", ["tsk", "\u001b[D", "\u001b[D", "a"], "task", 2],
    ["goes to both ends", ["bc", "\u0001", "a", "\u0005", "d"], "abcd", 4],
    ["cuts a word", ["task run", "\u0017"], "task ", 5],
    ["cuts to the beginning", ["task run", "\u001bb", "\u0015"], "run", 0],
    ["cuts to the end", ["task run", "\u001bb", "\u000b"], "task ", 5],
    ["takes no controls and no direction tricks", ["a\u0007\u202eb"], "ab", 2],
    ["stays one line", ["a\nb"], "a b", 3],
    ["ignores keys without a meaning", ["a", "\u001b[15~"], "a", 1],
    ["recalls the last line", ["\u001b[A"], "oldest", 6],
    ["gives back what was being typed", ["new", "\u001b[A", "\u001b[A", "\u001b[B", "\u001b[B"], "new", 3],
  ];
  test.each(cases)("%s", (_name, keys, line, cursor) => {
    const editor = typed(...keys);
    expect([editor.line, editor.cursor]).toEqual([line, cursor]);
  });

  test("is submitted once and remembered", () => {
    const editor = typed("task list");
    expect(editor.feed("\r")).toEqual({ type: "submit", line: "task list" });
    expect(editor.line).toBe("");
    editor.feed("\u001b[A");
    expect(editor.line).toBe("task list");
  });
});

test("a line holds nothing that a terminal obeys, whatever way it came in", () => {
  const hostile = "theme\u001b[5;5HEVIL\u009b2J\u202e\u200b\nx";
  const editor = new LineEditor(new History([hostile]));
  const ways = [
    () => editor.reset(hostile),
    () => void editor.recall(-1),
    () => {
      editor.reset();
      editor.replace(0, hostile);
    },
    () => {
      editor.reset();
      editor.insert(hostile);
    },
  ];
  for (const way of ways) {
    way();
    expect([editor.line, editor.cursor]).toEqual(["theme[5;5HEVIL2J x", 18]);
  }
});

describe("an answer", () => {
  const given = (...keys: string[]): boolean | null | undefined => {
    const answer = new Answer();
    return keys.map((key) => answer.feed(key).yes).find((yes) => yes !== undefined);
  };
  test.each<[string, string[], boolean | null | undefined]>([
    ["y and Enter is yes", ["y", "\r"], true],
    ["yes and Enter is yes", ["Y", "e", "s", "\r"], true],
    ["a pasted line is one", ["y\n"], true],
    ["Enter alone is no", ["\r"], false],
    ["anything else is no", ["yesterday", "\r"], false],
    ["is not given before Enter", ["y", "e", "s"], undefined],
    ["is mended", ["y", "\u007f", "n", "\r"], false],
    ["is taken back", ["no way", "\u0015", "y", "\r"], true],
    ["arrows and Tab mean nothing", ["\u001b[A", "\t", "y", "\r"], true],
    ["Ctrl-C is neither", ["y", "\u0003"], null],
  ])("%s", (_name, keys, yes) => expect(given(...keys)).toBe(yes));
  test("shows what it takes, and no control", () => {
    const answer = new Answer();
    expect([answer.feed("n\u001bo").echo, answer.feed("\u0015").echo, answer.feed("x".repeat(99)).echo.length]).toEqual(
      ["no", "\b \b\b \b", 16],
    );
  });
});

test("a sentence goes on at a word", () => {
  expect(wrapped("┌ apt-upgrade on many machines · its progress is under runs", 40)).toBe(
    "┌ apt-upgrade on many machines · its\r\n  progress is under runs",
  );
});

describe("output in its frame", () => {
  const piece = (data: string, gap_bytes = 0) => ({ seq: 0, stream: "stdout" as const, data, gap_bytes });
  const bare = (text: string): string => text.replace(/\u001b\[[\d;]*m/g, "");

  test("has a bar before each line, also when pieces end inside lines", () => {
    const framed = new Framed();
    expect(bare(framed.pieces([piece("one\ntw"), piece("o\nthree")]) + framed.end())).toBe(
      "│ one\r\n│ two\r\n│ three\r\n",
    );
  });
  test("keeps its colour over a line's end", () => {
    expect(new Framed().pieces([piece("\u001b[31ma\nb")])).toContain("\u001b[31mb");
  });
  test("marks a gap", () => {
    expect(bare(new Framed().pieces([piece("a", 0), piece("b", 2100)]))).toBe("│ a\r\n│ … 2.1 KiB missing …\r\n│ b");
  });
  test("redraws a progress line in its frame", () => {
    expect(bare(new Framed().pieces([piece("10%\r20%")]))).toBe("│ 10%\r\u001b[2K│ 20%");
  });
  test("lets no other escape through", () => {
    expect(plainText("\u001b]0;evil\u0007a\u001b[2J\u001b[31mb\n")).toBe("a\u001b[31mb\r\n");
  });
});

describe("a table's row", () => {
  const dim = (text: string): string => `\u001b[90m${text}\u001b[0m`;
  test.each([
    ["that has room stays", "uptime  Show how long it runs", "uptime  Show how long it runs"],
    [
      "goes on at a word, below its column",
      "uptime  Show how long the machine runs",
      "uptime  Show how long the\r\n        machine runs",
    ],
    [
      "keeps its colours",
      `${dim("uptime")}  ${dim("Show how long")} ${dim("the machine runs")}`,
      `${dim("uptime")}  ${dim("Show how long")} ${"\u001b[90m"}the\r\n        machine runs\u001b[0m`,
    ],
    [
      "goes on between choices",
      "log  unit=ssh|NetworkManager|cron [n=1]",
      "log  unit=ssh|NetworkManager|\r\n     cron [n=1]",
    ],
    ["leaves a long word to the terminal", `log  ${"x".repeat(40)} [n=1]`, `log  ${"x".repeat(40)}\r\n     [n=1]`],
    [
      "without room for words has them below it",
      "a task with a long name  and more words than fit",
      "a task with a long name\r\n  and more words than fit",
    ],
    [
      "keeps the columns that fit",
      `${dim("show")}   Name of it  ${dim("Show how long the machine has been running")}`,
      `${dim("show")}   Name of it\r\n  ${"\u001b[90m"}Show how long the machine\r\n  has been running\u001b[0m`,
    ],
    [
      "puts its last columns below it together",
      `${dim("disk-usage   ")}  Disk usage of all  Show free space on disks`,
      `${"\u001b[90m"}disk-usage\u001b[0m\r\n  Disk usage of all  Show free\r\n  space on disks`,
    ],
    [
      "leaves no empty row where a word ends at the edge",
      `log  ${"x".repeat(25)} more`,
      `log  ${"x".repeat(25)}\r\n     more`,
    ],
  ])("%s", (_name, row, shown) => {
    expect(fitted(`${row}\r\nend`, 30)).toBe(`${shown}\r\nend`);
  });
  test("is the only line that is broken: a command is copied as it is", () => {
    const line = "mosquitto_pub -h controller-host -t pistat/pi-1/task/request -m uptime";
    expect(fitted(line, 30)).toBe(line);
  });
});

test("columns count what is seen", () => {
  expect([columns("abc"), columns("温室"), columns("\u001b[31ma\u001b[0m"), columns("e\u0301")]).toEqual([3, 4, 1, 1]);
  expect(cut("Unpacking libssl3", 10)).toBe("Unpacking…");
});

describe("a group's bar", () => {
  const counts = (words: boolean): string =>
    words ? "17/25  16 ✔ 1 ✖ 7 running 1 waiting" : "17/25  16 ✔ 1 ✖ 7 ▶ 1 ·";
  test.each([20, 30, 38, 47, 60, 120])("never wraps in %i columns", (width) => {
    expect(columns(progress(0.68, counts, width))).toBeLessThanOrEqual(Math.max(width, columns(counts(false))));
  });
  test("keeps its words where there is room", () => {
    expect(progress(0.68, counts, 60)).toContain("7 running");
    expect(progress(0.68, counts, 38)).toContain("7 ▶");
    expect(progress(0.68, counts, 38)).toContain("▓");
  });
});

describe("lines of several runs", () => {
  test("are told apart by the machine before each of them", () => {
    const piece = { seq: 0, stream: "stdout" as const, data: "one\ntwo\n", gap_bytes: 0 };
    const text = new Framed(() => "Gate").pieces([piece]).replace(/\u001b\[[\d;]*m/g, "");
    expect(text).toBe("│ Gate  one\r\n│ Gate  two\r\n");
    expect(new Framed().pieces([piece]).replace(/\u001b\[[\d;]*m/g, "")).toBe("│ one\r\n│ two\r\n");
  });
});
