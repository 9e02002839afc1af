// Output of tasks is untrusted: this reader lets text and colours (SGR) through and drops every
// other escape sequence.
//
// It works on a stream: a sequence may be cut anywhere between two pieces. Direction tricks and
// controls are made visible.

import { visible } from "./text";

/** A stretch of plain text, or the parameters of one SGR sequence. */
export type Token = { text: string } | { sgr: number[] } | { control: "newline" | "return" };

/**
 * The longest sequence that is waited for; of longer ones this much is dropped, and the rest is
 * text.
 */
const LONGEST_SEQUENCE = 4096;

/** More than a joiner asks for of what stands before it, in code units. */
const CLUSTER = 32;

const ESC = "\u001b";

export class AnsiReader {
  #rest = "";
  #returned = false;
  /** The end of the text so far: a joiner that comes next belongs to it. */
  #before = "";

  /** Reads one piece. */
  read(piece: string): Token[] {
    const input = this.#rest + piece;
    this.#rest = "";
    const tokens: Token[] = [];
    let at = 0;
    while (at < input.length) {
      const special = input.slice(at).search(/[\u001b\u0090\u0098\u009b\u009d-\u009f\r\n]/);
      const end = special < 0 ? input.length : at + special;
      if (end > at) {
        this.#flushReturn(tokens);
        const text = input.slice(at, end);
        tokens.push({ text: visible(text, this.#before) });
        this.#before = text.slice(-CLUSTER);
      }
      if (special < 0) {
        break;
      }
      at = this.#special(input, end, tokens);
    }
    return tokens;
  }

  /** A carriage return is only one when no newline follows it. */
  #flushReturn(tokens: Token[]): void {
    if (this.#returned) {
      this.#returned = false;
      tokens.push({ control: "return" });
    }
  }

  #special(input: string, at: number, tokens: Token[]): number {
    const character = input[at];
    if (character === "\n" || character === "\r") {
      this.#before = "";
    }
    if (character === "\n") {
      this.#returned = false;
      tokens.push({ control: "newline" });
      return at + 1;
    }
    if (character === "\r") {
      this.#returned = true;
      return at + 1;
    }
    const end = sequenceEnd(input, at);
    if (end === null) {
      // Cut in the middle: wait for the rest, but not for ever.
      if (input.length - at < LONGEST_SEQUENCE) {
        this.#rest = input.slice(at);
        return input.length;
      }
      return at + LONGEST_SEQUENCE;
    }
    const colours = sgr(input.slice(at, end));
    if (colours) {
      tokens.push({ sgr: colours });
    }
    return end;
  }
}

/** The index after the sequence that begins at `at`; null when its end has not come yet. */
function sequenceEnd(input: string, at: number): number | null {
  let kind = input[at];
  let next = at + 1;
  if (kind === ESC) {
    kind = input[next];
    if (kind === undefined) {
      return null;
    }
    next += 1;
  }
  if (kind === "[" || kind === "\u009b") {
    return controlEnd(input, next);
  }
  if (kind !== undefined && "]PX^_\u0090\u0098\u009d\u009e\u009f".includes(kind)) {
    return stringEnd(input, next);
  }
  if (kind !== undefined && "()*+-./ #%".includes(kind)) {
    return next < input.length ? next + 1 : null;
  }
  return next;
}

function controlEnd(input: string, from: number): number | null {
  for (let at = from; at < input.length; at += 1) {
    const code = input.charCodeAt(at);
    if (code >= 0x40 && code <= 0x7e) {
      return at + 1;
    }
    // Anything but parameters and intermediates breaks the sequence off.
    if (code < 0x20 || code > 0x7e) {
      return at;
    }
  }
  return null;
}

/**
 * OSC, DCS and their kin end with BEL or ST; a newline or another sequence ends them too, or a lost
 * end would swallow the output.
 */
function stringEnd(input: string, from: number): number | null {
  const end = /\u0007|\u001b\\|\u009c|\u0018|\u001a|\n|\u001b(?=[^\\])/.exec(input.slice(from));
  if (!end) {
    return null;
  }
  return from + end.index + (end[0] === "\n" || end[0] === ESC ? 0 : end[0].length);
}

function sgr(sequence: string): number[] | null {
  const match = /^(?:\u001b\[|\u009b)([\d;:]*)m$/.exec(sequence);
  if (!match) {
    return null;
  }
  return (match[1] ?? "").split(/[;:]/).map((part) => (part === "" ? 0 : Math.min(Number(part), 65_535)));
}

/** How a stretch of text looks. Colours are 0 to 15, by the theme. */
export interface Style {
  fg?: number;
  bg?: number;
  bold?: boolean;
  dim?: boolean;
  italic?: boolean;
  underline?: boolean;
  inverse?: boolean;
  strike?: boolean;
}

/** The style after an SGR sequence. */
export function restyle(style: Style, codes: readonly number[]): Style {
  let next: Style = { ...style };
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at] ?? 0;
    if (code === 38 || code === 48) {
      const [colour, used] = extended(codes.slice(at + 1));
      at += used;
      if (colour !== undefined) {
        next[code === 38 ? "fg" : "bg"] = colour;
      }
    } else {
      next = simple(next, code);
    }
  }
  return next;
}

function simple(style: Style, code: number): Style {
  if (code === 0) {
    return {};
  }
  if (code >= 30 && code <= 37) {
    return { ...style, fg: code - 30 };
  }
  if (code >= 90 && code <= 97) {
    return { ...style, fg: code - 82 };
  }
  if (code >= 40 && code <= 47) {
    return { ...style, bg: code - 40 };
  }
  if (code >= 100 && code <= 107) {
    return { ...style, bg: code - 92 };
  }
  return { ...style, ...SWITCHES[code] };
}

const SWITCHES: Record<number, Style> = {
  1: { bold: true },
  2: { dim: true },
  3: { italic: true },
  4: { underline: true },
  7: { inverse: true },
  9: { strike: true },
  22: { bold: false, dim: false },
  23: { italic: false },
  24: { underline: false },
  27: { inverse: false },
  29: { strike: false },
  39: { fg: undefined },
  49: { bg: undefined },
};

/**
 * The colour of `5;n` or `2;r;g;b`, as the nearest of the theme's sixteen, and how many codes it
 * took.
 */
function extended(codes: readonly number[]): [number | undefined, number] {
  if (codes[0] === 5) {
    const index = codes[1] ?? 0;
    return [index < 16 ? index : nearest(cube(index)), 2];
  }
  if (codes[0] === 2) {
    return [nearest([codes[1] ?? 0, codes[2] ?? 0, codes[3] ?? 0]), 4];
  }
  return [undefined, 0];
}

type Rgb = [number, number, number];

/** xterm's 256 colours beyond the first sixteen: a 6 × 6 × 6 cube, then 24 greys. */
function cube(index: number): Rgb {
  if (index >= 232) {
    const grey = 8 + (index - 232) * 10;
    return [grey, grey, grey];
  }
  const step = (value: number): number => (value === 0 ? 0 : 55 + value * 40);
  const rest = index - 16;
  return [step(Math.floor(rest / 36)), step(Math.floor(rest / 6) % 6), step(rest % 6)];
}

const SIXTEEN: Rgb[] = [
  [0, 0, 0],
  [205, 0, 0],
  [0, 205, 0],
  [205, 205, 0],
  [0, 0, 238],
  [205, 0, 205],
  [0, 205, 205],
  [229, 229, 229],
  [127, 127, 127],
  [255, 0, 0],
  [0, 255, 0],
  [255, 255, 0],
  [92, 92, 255],
  [255, 0, 255],
  [0, 255, 255],
  [255, 255, 255],
];

function nearest([red, green, blue]: Rgb): number {
  let best = 0;
  let least = Infinity;
  SIXTEEN.forEach(([r, g, b], index) => {
    const distance = (r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2;
    if (distance < least) {
      least = distance;
      best = index;
    }
  });
  return best;
}

/** The classes of a style. */
export function classes(style: Style): string {
  const { fg, bg } = style.inverse ? { fg: style.bg ?? "bg", bg: style.fg ?? "fg" } : style;
  const names = [
    fg !== undefined && `fg-${fg}`,
    bg !== undefined && `bg-${bg}`,
    style.bold && "bold",
    style.dim && "dim",
    style.italic && "italic",
    style.underline && "underline",
    style.strike && "strike",
  ];
  return names.filter(Boolean).join(" ");
}
