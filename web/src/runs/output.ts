// Output as lines of coloured stretches, for a page: bounded, and built as it comes.

import type { OutputPiece } from "../protocol/types";
import { AnsiReader, classes, restyle, type Style, type Token } from "../ui/ansi";
import { bytes } from "../ui/format";

export interface Stretch {
  text: string;
  class: string;
}

export interface Line {
  number: number;
  stretches: Stretch[];
  stderr: boolean;
  /** A mark of ours, such as a gap; not output. */
  mark: boolean;
}

/**
 * The most lines that a page keeps; beyond it the oldest go. The whole output can be downloaded.
 */
const MOST_LINES = 200_000;

/** The most characters of a line that are laid out. */
const MOST_CHARACTERS = 4_000;

export class OutputLines {
  lines: Line[] = [];
  /** Lines that were dropped at the beginning. */
  dropped = 0;
  readonly #readers = { stdout: new AnsiReader(), stderr: new AnsiReader() };
  #style: Style = {};
  #open: Line | null = null;
  #length = 0;
  #count = 0;

  push(pieces: readonly OutputPiece[]): void {
    for (const piece of pieces) {
      if (piece.gap_bytes > 0) {
        this.#mark(`… ${bytes(piece.gap_bytes)} of output missing here …`);
      }
      for (const token of this.#readers[piece.stream].read(piece.data)) {
        this.#token(token, piece.stream === "stderr");
      }
    }
    if (this.lines.length > MOST_LINES) {
      const over = this.lines.length - MOST_LINES;
      this.lines.splice(0, over);
      this.dropped += over;
    }
  }

  #token(token: Token, stderr: boolean): void {
    if ("sgr" in token) {
      this.#style = restyle(this.#style, token.sgr);
    } else if ("text" in token) {
      this.#text(token.text, stderr);
    } else if (token.control === "newline") {
      this.#open ??= this.#line(stderr, false);
      this.#open = null;
    } else if (this.#open) {
      // A carriage return: the line begins anew.
      this.#open.stretches = [];
      this.#length = 0;
    }
  }

  #text(text: string, stderr: boolean): void {
    const line = (this.#open ??= this.#line(stderr, false));
    if (this.#length >= MOST_CHARACTERS) {
      return;
    }
    const rest = MOST_CHARACTERS - this.#length;
    line.stretches.push({ text: text.length > rest ? `${text.slice(0, rest)} …` : text, class: classes(this.#style) });
    this.#length += text.length;
  }

  #mark(text: string): void {
    this.#open = null;
    this.#line(false, true).stretches.push({ text, class: "" });
  }

  #line(stderr: boolean, mark: boolean): Line {
    this.#count += 1;
    this.#length = 0;
    const line: Line = { number: this.#count, stretches: [], stderr, mark };
    this.lines.push(line);
    return line;
  }
}
