// Text for the terminal: colours, widths, and task output in its frame.

import type { OutputPiece } from "../protocol/types";
import { AnsiReader, type Token } from "../ui/ansi";
import { bytes } from "../ui/format";
import { clusters, columns as columnsOf } from "../ui/width";

const wrap = (code: string) => (text: string) => `\u001b[${code}m${text}\u001b[0m`;

export const paint = {
  dim: wrap("90"),
  bright: wrap("97"),
  green: wrap("32"),
  red: wrap("31"),
  yellow: wrap("33"),
  cyan: wrap("36"),
};

/** How many columns a text takes, its colours left aside. */
export function columns(text: string): number {
  return columnsOf(text.replace(/\u001b\[[\d;]*m/g, ""));
}

/** Cuts plain text to a number of columns. */
export function cut(text: string, width: number): string {
  if (columnsOf(text) <= width) {
    return text;
  }
  let taken = "";
  let place = 0;
  for (const cluster of clusters(text)) {
    place += cluster.columns;
    if (place > width - 1) break;
    taken += cluster.text;
  }
  return `${taken}…`;
}

/** Fills plain text with spaces up to a number of columns. */
export function padded(text: string, width: number): string {
  return text + " ".repeat(Math.max(0, width - columnsOf(text)));
}

/**
 * Where the cursor stands after plain text that began in a column: so many rows below, in which
 * column. A wide cluster never lies across the edge.
 */
export function after(text: string, from: number, width: number): { row: number; column: number } {
  let row = 0;
  let column = from;
  for (const cluster of clusters(text)) {
    if (column + cluster.columns > width) {
      row += 1;
      column = 0;
    }
    column += cluster.columns;
  }
  return { row, column };
}

/** A segmented bar of `width` columns. */
export function bar(share: number, width: number): string {
  const lit = Math.round(Math.max(0, Math.min(1, share)) * width);
  return `${paint.green("▓".repeat(lit))}${paint.dim("░".repeat(width - lit))}`;
}

/** Text of the controller for the terminal: colours pass, everything else is made visible. */
export function plainText(text: string): string {
  return new AnsiReader().read(text).map(token).join("");
}

/**
 * The least room that a table's last column has for its words; with less they stand below the row.
 */
const LEAST_COLUMN = 16;

/** How far a line that goes on stands behind where it began. */
const INDENT = 2;

const COLUMN = /\S {2,}(?=(?:\u001b\[[\d;]*m)*\S)/g;

/**
 * A table's row that is wider than the terminal goes on at a word or a choice, below its last
 * column or, where that has no room, below the
 * row. Any other line is left whole, since it may be there to be copied, and the terminal breaks it
 * without a trace in what is copied.
 */
export function fitted(text: string, width: number): string {
  return text
    .split("\r\n")
    .map((line) => fittedRow(line, width))
    .join("\r\n");
}

/** A sentence that goes on at a word, a little behind where it began. */
export function wrapped(text: string, width: number): string {
  return flow(text, width, INDENT, 0);
}

function fittedRow(line: string, width: number): string {
  const begins = [...line.matchAll(COLUMN)].map((gap) => gap.index + gap[0].length);
  const last = begins[begins.length - 1];
  if (last === undefined || columns(line) <= width) {
    return line;
  }
  const left = line.slice(0, last);
  const indent = columns(left);
  return width - indent < LEAST_COLUMN
    ? stacked(line, begins, width)
    : left + flow(line.slice(last), width, indent, indent);
}

/** As many columns as fit, and below them the others as words. */
function stacked(line: string, begins: number[], width: number): string {
  const fit = begins.filter((begin) => columns(trimmed(line.slice(0, begin))) <= width);
  const kept = fit[fit.length - 1] ?? begins[0] ?? 0;
  const rest = begins
    .filter((begin) => begin >= kept)
    .map((begin, index, all) => trimmed(line.slice(begin, all[index + 1])));
  const indent = columns(/^ */.exec(line)?.[0] ?? "") + INDENT;
  return `${trimmed(line.slice(0, kept))}\r\n${" ".repeat(indent)}${flow(rest.join("  "), width, indent, indent)}`;
}

/** Breaks text at words and choices: it begins at `place`, and its next lines at `indent`. */
function flow(text: string, width: number, indent: number, place: number): string {
  const lines = [""];
  for (const word of text.split(/(?<=[ |])/)) {
    if (place > indent && place + columns(trimmed(word)) > width) {
      lines.push(" ".repeat(indent));
      place = indent;
    }
    lines[lines.length - 1] += word;
    place += columns(word);
  }
  return lines.map((line, index) => (index + 1 < lines.length ? trimmed(line) : line)).join("\r\n");
}

/** Without the spaces at its end, which would go on in a row of their own; colours stay. */
function trimmed(text: string): string {
  return text.replace(/(?: |\u001b\[[\d;]*m)+$/, (end) => end.replaceAll(" ", ""));
}

function token(each: Token): string {
  if ("text" in each) {
    return each.text;
  }
  if ("sgr" in each) {
    return colour(each.sgr);
  }
  return each.control === "newline" ? "\r\n" : "";
}

const colour = (codes: readonly number[]): string => `\u001b[${codes.join(";")}m`;

/**
 * Task output with a bar at the left of each line, and a tag where lines of several runs stand
 * among each other.
 */
export class Framed {
  constructor(private readonly tag: () => string = () => "") {}

  readonly #reader = new AnsiReader();
  #atStart = true;
  #style = "";

  /** The terminal text of some pieces. */
  pieces(pieces: readonly OutputPiece[]): string {
    return pieces.map((piece) => this.#piece(piece)).join("");
  }

  /** What a line of this run begins with. */
  mark(corner: "┌" | "│" | "└"): string {
    const tag = this.tag();
    return tag === "" ? paint.dim(corner) : `${paint.dim(corner)} ${paint.cyan(tag)} `;
  }

  /** Ends a line that has no end. */
  end(): string {
    const text = this.#atStart ? "" : "\u001b[0m\r\n";
    this.#atStart = true;
    return text;
  }

  #piece(piece: OutputPiece): string {
    const gap =
      piece.gap_bytes > 0
        ? `${this.end()}${this.mark("│")} ${paint.yellow(`… ${bytes(piece.gap_bytes)} missing …`)}\r\n`
        : "";
    return (
      gap +
      this.#reader
        .read(piece.data)
        .map((each) => this.#token(each))
        .join("")
    );
  }

  #token(each: Token): string {
    if ("sgr" in each) {
      return this.#colour(each.sgr);
    }
    if ("text" in each) {
      return this.#begin() + each.text;
    }
    if (each.control === "return") {
      // The line begins anew, as progress displays do.
      return this.#atStart ? "" : `\r\u001b[2K${this.#frame()}`;
    }
    const text = `${this.#begin()}\u001b[0m\r\n`;
    this.#atStart = true;
    return text;
  }

  #colour(codes: number[]): string {
    const sequence = colour(codes);
    this.#style = codes.includes(0) || codes.length === 0 ? sequence : (this.#style + sequence).slice(-200);
    return this.#atStart ? "" : sequence;
  }

  #begin(): string {
    if (!this.#atStart) {
      return "";
    }
    this.#atStart = false;
    return this.#frame();
  }

  #frame(): string {
    return `${this.mark("│")} ${this.#style}`;
  }
}
