// The answer to a question: a short line of its own, ended with Enter, as the command line reads
// it. Nothing of it can become a command.

/** Longer than any answer. */
const LONGEST = 16;

export interface Fed {
  /** What the terminal shows for it. */
  echo: string;
  /** The answer, once it is given; null is Ctrl-C. */
  yes?: boolean | null;
}

export class Answer {
  #text = "";

  /** Takes a key, or text that was pasted; whatever follows its first line end is dropped. */
  feed(data: string): Fed {
    switch (data) {
      case "\u0003":
        return { echo: "", yes: null };
      case "\u007f":
      case "\b":
        return this.#erase(1);
      case "\u0015":
        return this.#erase(LONGEST);
    }
    return data.startsWith("\u001b") ? { echo: "" } : this.#take(data);
  }

  #take(data: string): Fed {
    const [first = "", ...rest] = data.split(/[\r\n]/);
    const echo = first.replace(/[^\u0020-\u007e]/g, "").slice(0, LONGEST - this.#text.length);
    this.#text += echo;
    return rest.length === 0 ? { echo } : { echo, yes: /^\s*y(es)?\s*$/i.test(this.#text) };
  }

  #erase(most: number): Fed {
    const erased = Math.min(most, this.#text.length);
    this.#text = this.#text.slice(0, this.#text.length - erased);
    return { echo: "\b \b".repeat(erased) };
  }
}
