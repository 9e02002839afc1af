// Lines of output as the rows of a screen so many characters wide. Built as output comes: what was
// wrapped once stays wrapped.

import { ASCII, clusters } from "../ui/width";
import type { Line, Stretch } from "./output";

export interface Row {
  key: string;
  line: Line;
  /** The first row of a line is its part 0. */
  part: number;
  stretches: Stretch[];
}

/** How much of a row may stay empty so that a word stays whole. */
const RAGGED = 0.3;

const TAB = 8;

export class Wrapped {
  #rows: Row[] = [];
  readonly #columns: number;

  constructor(columns: number) {
    this.#columns = columns;
  }

  /**
   * The rows of these lines, of which only the newest may have changed and the oldest have gone
   * since the last time.
   */
  update(lines: readonly Line[]): Row[] {
    const oldest = lines[0]?.number ?? Infinity;
    const gone = this.#rows.findIndex((row) => row.line.number >= oldest);
    const kept = gone < 0 ? [] : this.#rows.slice(gone);
    // The newest line may have grown, or begun anew.
    const newest = kept[kept.length - 1]?.line.number;
    while (kept.length > 0 && kept[kept.length - 1]?.line.number === newest) kept.pop();
    const next = newest === undefined ? 0 : newest - oldest;
    for (const line of lines.slice(next)) {
      for (const [part, stretches] of cut(line.stretches, this.#columns).entries()) {
        kept.push({ key: `${line.number}.${part}`, line, part, stretches });
      }
    }
    this.#rows = kept;
    return kept;
  }
}

/** Cuts a line into rows: at a space where one is near, else where it is full. */
export function cut(stretches: readonly Stretch[], columns: number): Stretch[][] {
  const text = stretches.map((stretch) => stretch.text).join("");
  const short = !text.includes("\t") && (text.length * 2 <= columns || (text.length <= columns && ASCII.test(text)));
  const ends = short ? [text.length] : endsOf(text, columns);
  if (ends.length === 1) {
    return [[...stretches]];
  }
  let from = 0;
  return ends.map((to) => {
    const row = part(stretches, from, to);
    from = to;
    return row;
  });
}

/** Where each row ends, in characters of the text. */
function endsOf(text: string, columns: number): number[] {
  const ends: number[] = [];
  let start = 0;
  let place = 0;
  let space = 0;
  let placeAfterSpace = 0;
  let at = 0;
  for (const { text: character, columns: wide } of clusters(text)) {
    const size = character === "\t" ? TAB - (place % TAB) : wide;
    if (place + size > columns && at > start) {
      const whole = space > start && placeAfterSpace >= columns * (1 - RAGGED);
      const end = whole ? space : at;
      ends.push(end);
      place = whole ? place - placeAfterSpace : 0;
      start = end;
    }
    place += size;
    at += character.length;
    if (character === " ") {
      space = at;
      placeAfterSpace = place;
    }
  }
  return [...ends, text.length];
}

/** The stretches from one character of a line to another. */
function part(stretches: readonly Stretch[], from: number, to: number): Stretch[] {
  const found: Stretch[] = [];
  let start = 0;
  for (const { text, class: name } of stretches) {
    const piece = text.slice(Math.max(0, from - start), Math.max(0, to - start));
    if (piece !== "") found.push({ text: piece, class: name });
    start += text.length;
  }
  return found;
}
