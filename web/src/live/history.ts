// The lines that were typed here, kept in this browser.

/** How many lines are kept. */
const KEPT = 500;
const KEY = "pistat.history";

export class History {
  readonly #lines: string[];
  /** Where the arrows are; the number of lines means: at what is being typed. */
  #at: number;

  constructor(lines: string[] = []) {
    this.#lines = [...lines];
    this.#at = this.#lines.length;
  }

  static load(): History {
    try {
      const lines: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
      return new History(Array.isArray(lines) ? lines.filter((line) => typeof line === "string").slice(-KEPT) : []);
    } catch {
      return new History();
    }
  }

  /** Erases what was typed, so that the next user of this browser cannot read it. */
  static forget(): void {
    try {
      localStorage.removeItem(KEY);
    } catch {
      // Then nothing was kept either.
    }
  }

  get atDraft(): boolean {
    return this.#at === this.#lines.length;
  }

  add(line: string): void {
    if (line.trim() !== "" && line !== this.#lines[this.#lines.length - 1]) {
      this.#lines.push(line);
      this.#lines.splice(0, this.#lines.length - KEPT);
      this.#save();
    }
    this.#at = this.#lines.length;
  }

  /** An older or newer line; null is what was being typed, undefined is nowhere to go. */
  step(direction: -1 | 1): string | null | undefined {
    const next = this.#at + direction;
    if (next < 0 || next > this.#lines.length) {
      return undefined;
    }
    this.#at = next;
    return this.#lines[next] ?? null;
  }

  #save(): void {
    try {
      globalThis.localStorage?.setItem(KEY, JSON.stringify(this.#lines));
    } catch {
      // A full or forbidden storage only costs the history.
    }
  }
}
