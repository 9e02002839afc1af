// How many columns text takes in a terminal: asked of the very tables that xterm.js draws by, so
// that what is measured is what is seen.
// The controller's renderer measures with the crate unicode-width, which agrees on what labels are
// made of (`tests/fixtures/widths.json`).

import { UnicodeGraphemesAddon } from "@xterm/addon-unicode-graphemes";
import type { ITerminalAddon, IUnicodeVersionProvider, Terminal } from "@xterm/xterm";

/**
 * What follows belongs to the cluster before it; and the columns of the cluster so far (xterm.js'
 * `UnicodeService`).
 */
const joins = (properties: number): boolean => (properties & 1) !== 0;
const columnsOf = (properties: number): number => (properties >> 1) & 3;

/**
 * The add-on registers its tables with a terminal, and has no other interface: this object stands
 * in for a terminal.
 */
function tables(): IUnicodeVersionProvider {
  let newest: IUnicodeVersionProvider | undefined;
  const unicode = {
    register: (provider: IUnicodeVersionProvider) => (newest = provider),
    activeVersion: "",
    versions: [],
  };
  const addon: ITerminalAddon = new UnicodeGraphemesAddon();
  addon.activate({ unicode } as unknown as Terminal);
  if (!newest) {
    throw new Error("the add-on registers a provider when it is activated");
  }
  return newest;
}

const provider = tables();

/** What a reader sees as one character, and how many columns it takes. */
export interface Cluster {
  text: string;
  columns: number;
}

/** Text in clusters, in order; nothing of it is lost. */
export function clusters(text: string): Cluster[] {
  const found: Cluster[] = [];
  let before = 0;
  for (const character of text) {
    const properties = provider.charProperties(character.codePointAt(0) ?? 0, before as never) as number;
    const last = found[found.length - 1];
    if (last && joins(properties)) {
      last.text += character;
      last.columns = columnsOf(properties);
    } else {
      found.push({ text: character, columns: columnsOf(properties) });
    }
    before = properties;
  }
  return found;
}

/** Text of which each character takes one column. */
export const ASCII = /^[ -~]*$/;

/**
 * How many columns a text takes: wide clusters two, what combines with the character before it
 * none.
 */
export function columns(text: string): number {
  return ASCII.test(text) ? text.length : clusters(text).reduce((sum, each) => sum + each.columns, 0);
}
