// Text from outside, made visible: controls and direction tricks are shown, never obeyed.

/**
 * Scripts in which a joiner between two letters decides how a word is written, Persian and the
 * Indic ones among them.
 */
const JOINING = [
  "Arab",
  "Syrc",
  "Nkoo",
  "Mong",
  "Mand",
  "Deva",
  "Beng",
  "Guru",
  "Gujr",
  "Orya",
  "Taml",
  "Telu",
  "Knda",
  "Mlym",
  "Sinh",
  "Khmr",
  "Mymr",
  "Tibt",
];
const LETTER = `[${JOINING.map((script) => `\\p{scx=${script}}`).join("")}]`;
const PICTURE = "\\p{Extended_Pictographic}";

/**
 * Invisible characters that belong to a written word or a picture. A piece of a stream may end in a
 * joiner.
 */
const BELONGING = [
  `(?<=${LETTER}\\p{M}*)[\\u200c\\u200d]+(?=${LETTER}|$)`,
  `(?<=${PICTURE}[\\ufe0f\\u{1f3fb}-\\u{1f3ff}]*)\\u200d(?=${PICTURE}|$)`,
  // Variations: of pictures, key caps, Han, Mongolian and Myanmar letters.
  `(?<=${PICTURE})[\\ufe0e\\ufe0f]`,
  "(?<=[0-9#*])\\ufe0f(?=\\u20e3)",
  "(?<=\\p{scx=Hani})[\\ufe00-\\ufe0f\\u{e0100}-\\u{e01ef}]",
  "(?<=\\p{scx=Mong})[\\u180b-\\u180f]",
  "(?<=\\p{scx=Mymr})\\ufe00",
  // The tags of a region's flag.
  "(?<=\\u{1f3f4}[\\u{e0020}-\\u{e007e}]*)[\\u{e0020}-\\u{e007f}]",
];

/**
 * Characters that act instead of being seen: controls, line separators, and whatever is invisible
 * by itself (Default_Ignorable_Code_Point),
 * which includes direction marks, embeddings, overrides and isolates (UAX #9).
 */
const ACTING = "([\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u2028\\u2029\\p{Default_Ignorable_Code_Point}])";
const TRICKS = new RegExp([...BELONGING, ACTING].join("|"), "gu");

/** Text without any of them. */
const PLAIN = /^[\t\n -~]*$/;

/**
 * Text in which each such character is replaced; `before` is what stood before it, for joiners at
 * its beginning.
 */
function replaced(text: string, by: (character: string) => string, before = ""): string {
  if (PLAIN.test(text)) {
    return text;
  }
  const from = before.length;
  return (before + text)
    .replace(TRICKS, (whole: string, trick: string | undefined, at: number) =>
      trick === undefined || at < from ? whole : by(trick),
    )
    .slice(from);
}

/** Replaces characters that would act instead of being seen: `⟨202E⟩`. */
export function visible(text: string, before = ""): string {
  return replaced(
    text,
    (character) => `⟨${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(2, "0")}⟩`,
    before,
  );
}

/** Leaves them out. */
export function withoutTricks(text: string): string {
  return replaced(text, () => "");
}

/** The same in one line. */
export function visibleLine(text: string): string {
  return visible(text.replace(/[\r\n\t]+/g, " "));
}

/** A POSIX shell's word: as it is when harmless, else in single quotes. */
export function shellQuote(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A word of the web terminal's language: in double quotes when it needs them. */
export function commandQuote(word: string): string {
  return /^[^\s"'\\]+$/.test(word) ? word : `"${word.replace(/["\\]/g, "\\$&")}"`;
}

/** Copies text, also where the page is not a secure context (plain HTTP on a LAN address). */
export async function copyText(text: string): Promise<boolean> {
  if (navigator.clipboard && window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Refused by the browser: the old way still works after a click.
    }
  }
  const active = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "off-screen";
  area.setAttribute("aria-hidden", "true");
  // Inside an open dialog everything else is inert, so the area must be in there.
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (active instanceof HTMLElement) {
    active.focus();
  }
  return copied;
}

/** Lets the browser save a file. */
export function saveAs(content: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  // The download has its own hold on the content once it has begun.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
