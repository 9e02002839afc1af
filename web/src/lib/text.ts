// Text from outside, made visible: controls and direction tricks are shown, never obeyed.

// C0 and C1 controls, direction marks, embeddings, overrides, isolates, and invisible joiners that hide text.
// eslint-disable-next-line no-control-regex
const TRICKS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** Replaces characters that would act instead of being seen: `⟨202E⟩`. */
export function visible(text: string): string {
  return text.replace(TRICKS, (character) => `⟨${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(2, "0")}⟩`);
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

/** Copies text, also where the page is no secure context (plain HTTP on a LAN address). */
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
