// The line being typed: keys in, actions out. Pure: it draws nothing and knows no terminal but its
// key codes.
//
// Whatever way a line came in, it holds nothing that the terminal would obey.

import { History } from "../live/history";
import { withoutTricks } from "../ui/text";
import { clusters } from "../ui/width";

export type Act =
  | { type: "changed" }
  | { type: "submit"; line: string }
  | { type: "complete" }
  | { type: "interrupt" }
  | { type: "clear" };

const KEYS: Record<string, (editor: LineEditor) => Act | null> = {
  "\r": (editor) => editor.submit(),
  "\t": () => ({ type: "complete" }),
  "\u0003": () => ({ type: "interrupt" }),
  "\u000c": () => ({ type: "clear" }),
  "\u007f": (editor) => editor.erase(-1),
  "\b": (editor) => editor.erase(-1),
  "\u001b[3~": (editor) => editor.erase(1),
  "\u0004": (editor) => editor.erase(1),
  "\u001b[D": (editor) => editor.move(editor.step(-1)),
  "\u001b[C": (editor) => editor.move(editor.step(1)),
  "\u0002": (editor) => editor.move(editor.step(-1)),
  "\u0006": (editor) => editor.move(editor.step(1)),
  "\u001b[A": (editor) => editor.recall(-1),
  "\u001b[B": (editor) => editor.recall(1),
  "\u0010": (editor) => editor.recall(-1),
  "\u000e": (editor) => editor.recall(1),
  "\u001b[H": (editor) => editor.move(0),
  "\u001bOH": (editor) => editor.move(0),
  "\u001b[1~": (editor) => editor.move(0),
  "\u0001": (editor) => editor.move(0),
  "\u001b[F": (editor) => editor.move(Infinity),
  "\u001bOF": (editor) => editor.move(Infinity),
  "\u001b[4~": (editor) => editor.move(Infinity),
  "\u0005": (editor) => editor.move(Infinity),
  "\u001b[1;5D": (editor) => editor.move(editor.word(-1)),
  "\u001b[1;5C": (editor) => editor.move(editor.word(1)),
  "\u001bb": (editor) => editor.move(editor.word(-1)),
  "\u001bf": (editor) => editor.move(editor.word(1)),
  "\u0015": (editor) => editor.cut(0, editor.cursor),
  "\u000b": (editor) => editor.cut(editor.cursor, editor.line.length),
  "\u0017": (editor) => editor.cut(editor.word(-1), editor.cursor),
  "\u001b\u007f": (editor) => editor.cut(editor.word(-1), editor.cursor),
};

/**
 * Text as a line may hold it: one line, without controls, direction tricks and what hides between
 * letters.
 */
export function plainLine(text: string): string {
  return withoutTricks(text.replace(/[\r\n\t]+/g, " "));
}

export class LineEditor {
  line = "";
  cursor = 0;
  readonly history: History;
  /** What was being typed before the arrows went into the history. */
  #draft = "";

  constructor(history = new History()) {
    this.history = history;
  }

  /** Takes what the terminal's keyboard gave: one key, or typed text. */
  feed(data: string): Act | null {
    const key = KEYS[data];
    if (key) {
      return key(this);
    }
    // Keys that mean nothing here, and anything that is not text.
    return data.startsWith("\u001b") ? null : this.insert(data);
  }

  /** Inserts text; a line stays one line. */
  insert(text: string): Act | null {
    const plain = plainLine(text);
    if (plain === "") {
      return null;
    }
    this.line = this.line.slice(0, this.cursor) + plain + this.line.slice(this.cursor);
    this.cursor += plain.length;
    return { type: "changed" };
  }

  /** Puts a completion in place of what stands between `start` and the cursor. */
  replace(start: number, text: string): void {
    const plain = plainLine(text);
    this.line = this.line.slice(0, start) + plain + this.line.slice(this.cursor);
    this.cursor = start + plain.length;
  }

  reset(line = ""): void {
    this.line = plainLine(line);
    this.cursor = this.line.length;
  }

  submit(): Act {
    const line = this.line;
    this.history.add(line);
    this.reset();
    return { type: "submit", line };
  }

  /** Where the cursor stands after one step over a whole grapheme. */
  step(direction: -1 | 1): number {
    if (direction === 1) {
      return this.cursor + (clusters(this.line.slice(this.cursor))[0]?.text.length ?? 0);
    }
    return this.cursor - (clusters(this.line.slice(0, this.cursor)).pop()?.text.length ?? 0);
  }

  /** Where the word before or after the cursor begins or ends. */
  word(direction: -1 | 1): number {
    if (direction === -1) {
      return this.line.slice(0, this.cursor).replace(/\S+\s*$/, "").length;
    }
    return this.cursor + (/^\s*\S*/.exec(this.line.slice(this.cursor))?.[0].length ?? 0);
  }

  move(cursor: number): Act {
    this.cursor = Math.max(0, Math.min(cursor, this.line.length));
    return { type: "changed" };
  }

  erase(direction: -1 | 1): Act {
    const other = this.step(direction);
    return this.cut(Math.min(other, this.cursor), Math.max(other, this.cursor));
  }

  cut(from: number, to: number): Act {
    this.line = this.line.slice(0, from) + this.line.slice(to);
    this.cursor = from;
    return { type: "changed" };
  }

  recall(direction: -1 | 1): Act | null {
    if (this.history.atDraft) {
      this.#draft = this.line;
    }
    const line = this.history.step(direction);
    if (line === undefined) {
      return null;
    }
    this.reset(line ?? this.#draft);
    return { type: "changed" };
  }
}
