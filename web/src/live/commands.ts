// The conversation of the terminal's commands with the controller: numbers them and delivers each
// answer to its caller.

import type { Action, Completion, Run, RunId, ServerMessage } from "../protocol/types";

export interface Listener {
  text(text: string): void;
  ask(question: string): void;
  started(runs: RunId[], group: RunId | null): void;
  perform(action: Action): void;
  done(ok: boolean): void;
  /** The link went away before the command was done. */
  lost(): void;
}

export interface Completions {
  start: number;
  candidates: Completion[];
}

class Commands {
  #last = 0;
  readonly #listeners = new Map<number, Listener>();
  readonly #completions = new Map<number, (answer: Completions) => void>();
  readonly #changes = new Set<() => void>();
  readonly #began = new Set<(run: Run) => void>();

  /** A number for a new command. */
  open(listener: Listener): number {
    this.#last += 1;
    this.#listeners.set(this.#last, listener);
    return this.#last;
  }

  /** A number for a question that is answered with `completions`. */
  openCompletion(answer: (completions: Completions) => void): number {
    this.#last += 1;
    // Only the newest question is of interest.
    this.#completions.clear();
    this.#completions.set(this.#last, answer);
    return this.#last;
  }

  close(id: number): void {
    this.#listeners.delete(id);
  }

  /** Calls back whenever runs or groups changed. */
  onChange(callback: () => void): () => void {
    this.#changes.add(callback);
    return () => this.#changes.delete(callback);
  }

  /** Calls back for each new run, whatever started it. */
  onBegan(callback: (run: Run) => void): () => void {
    this.#began.add(callback);
    return () => this.#began.delete(callback);
  }

  began(run: Run): void {
    for (const callback of [...this.#began]) {
      callback(run);
    }
  }

  changed(): void {
    for (const callback of [...this.#changes]) {
      callback();
    }
  }

  lost(): void {
    const listeners = [...this.#listeners.values()];
    this.#listeners.clear();
    this.#completions.clear();
    for (const listener of listeners) {
      listener.lost();
    }
  }

  received(message: ServerMessage): void {
    if (message.type === "completions") {
      this.#completions.get(message.id)?.(message);
      this.#completions.delete(message.id);
    } else if ("id" in message) {
      this.#listener(message);
    }
  }

  #listener(message: Extract<ServerMessage, { id: number }>): void {
    const listener = this.#listeners.get(message.id);
    switch (message.type) {
      case "text":
        return listener?.text(message.text);
      case "ask":
        return listener?.ask(message.question);
      case "started":
        return listener?.started(message.runs, message.group);
      case "perform":
        return listener?.perform(message.action);
      case "done":
        this.#listeners.delete(message.id);
        return listener?.done(message.ok);
    }
  }
}

export const commands = new Commands();
