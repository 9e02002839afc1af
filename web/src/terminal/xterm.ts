// xterm.js in this page: themed by tokens.css, and without a single inline style, so that
// `style-src 'self'` holds.
//
// xterm.js writes <style> elements and style attributes. The document that it is given here answers
// with elements whose text goes
// into a constructed style sheet, and style attributes of <span> go through the CSS object model:
// both need no exception in the policy.

import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { UnicodeGraphemesAddon } from "@xterm/addon-unicode-graphemes";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { type ITheme, Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";

/** Lines that scroll back. */
const SCROLLBACK = 5_000;

export interface Screen {
  terminal: Terminal;
  fit: FitAddon;
  search: SearchAddon;
}

export function createScreen(fontSize: number, screenReader: boolean): Screen {
  const terminal = new Terminal({
    documentOverride: strictDocument(),
    // Which table of widths is used is a proposed part of the interface; nothing else of it is
    // called.
    allowProposedApi: true,
    cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches,
    cursorStyle: "block",
    cursorInactiveStyle: "outline",
    fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"),
    fontSize,
    lineHeight: 1.2,
    scrollback: SCROLLBACK,
    // Bold stays bold and never becomes another colour: the themes' contrast depends on it.
    drawBoldTextInBrightColors: false,
    // WCAG AA for whatever colours a task prints.
    minimumContrastRatio: 4.5,
    screenReaderMode: screenReader,
    theme: terminalTheme(),
    // What a task prints may ask the terminal nothing: reports and titles are off.
    windowOptions: {},
    linkHandler: { activate: () => undefined },
  });
  const fit = new FitAddon();
  const search = new SearchAddon();
  // Widths by whole clusters: without it an emoji would take one column and what is drawn over two
  // would shift.
  terminal.loadAddon(new UnicodeGraphemesAddon());
  terminal.loadAddon(fit);
  terminal.loadAddon(search);
  terminal.loadAddon(new WebLinksAddon((_event, address) => open(address, "_blank", "noopener,noreferrer")));
  return { terminal, fit, search };
}

export function terminalTheme(): ITheme {
  const style = getComputedStyle(document.documentElement);
  const token = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  const ansi = (index: number): string => token(`ansi-${index}`);
  return {
    background: token("panel"),
    foreground: token("text"),
    cursor: token("accent"),
    cursorAccent: token("panel"),
    selectionBackground: token("selection"),
    scrollbarSliderBackground: token("line"),
    scrollbarSliderHoverBackground: token("line-strong"),
    scrollbarSliderActiveBackground: token("line-strong"),
    black: ansi(0),
    red: ansi(1),
    green: ansi(2),
    yellow: ansi(3),
    blue: ansi(4),
    magenta: ansi(5),
    cyan: ansi(6),
    white: ansi(7),
    brightBlack: ansi(8),
    brightRed: ansi(9),
    brightGreen: ansi(10),
    brightYellow: ansi(11),
    brightBlue: ansi(12),
    brightMagenta: ansi(13),
    brightCyan: ansi(14),
    brightWhite: ansi(15),
  };
}

/**
 * Draws the terminal into `host`.
 *
 * One part of xterm.js (its viewport) asks the page's own document for a `<style>`, so for the
 * moment of opening that document answers as the strict one does.
 */
export function openScreen(terminal: Terminal, host: HTMLElement): void {
  spanStyles();
  const create = document.createElement.bind(document);
  document.createElement = ((tag: string, options?: ElementCreationOptions) =>
    tag === "style" ? sheetElement() : create(tag, options)) as typeof document.createElement;
  try {
    terminal.open(host);
  } finally {
    // The prototype's own method is behind it again.
    Reflect.deleteProperty(document, "createElement");
  }
}

/** A document that makes constructed style sheets instead of `<style>` elements. */
function strictDocument(): Document {
  return new Proxy(document, {
    get(target, name) {
      if (name === "createElement") {
        return (tag: string) => (tag === "style" ? sheetElement() : target.createElement(tag));
      }
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
    set: (target, name, value) => Reflect.set(target, name, value, target),
  });
}

/**
 * A style attribute of a `<span>` is set through the CSS object model, which the policy allows: the
 * same effect, for this page's spans only.
 */
function spanStyles(): void {
  HTMLSpanElement.prototype.setAttribute = function (this: HTMLSpanElement, name: string, value: string): void {
    if (name === "style") {
      this.style.cssText = value;
    } else {
      Element.prototype.setAttribute.call(this, name, value);
    }
  };
}

/** Stands where a <style> would stand; its text is a constructed style sheet. */
function sheetElement(): HTMLElement {
  const element = Document.prototype.createElement.call(document, "span");
  element.hidden = true;
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  Object.defineProperty(element, "textContent", {
    get: () => "",
    set: (text: string) => sheet.replaceSync(text),
  });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((each) => each !== sheet);
    HTMLElement.prototype.remove.call(element);
  };
  return element;
}
