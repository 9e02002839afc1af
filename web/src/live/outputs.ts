// The output of the runs that are shown: one stream per run, shared by all views of it.
//
// Received output is kept while a view is open, so that a second view starts at the beginning;
// after a lost link the stream resumes where it stopped.
// No more runs are followed at a time than the controller allows: the others wait until one has
// ended or is left.

import { type ClientMessage, MAX_FOLLOWED, type OutputPiece, type RunId } from "../protocol/types";

export interface Watcher {
  /** Pieces in order, each once. */
  pieces(pieces: OutputPiece[]): void;
  /** The run is final and everything was given. */
  done(): void;
  /** Nothing more comes, and why; `done` follows. */
  problem?(reason: string): void;
}

interface Stream {
  pieces: OutputPiece[];
  next: number;
  /** Whether the controller was asked for it and sends it. */
  open: boolean;
  done: boolean;
  problem: string | null;
  watchers: Set<Watcher>;
}

export class Outputs {
  readonly #send: (message: ClientMessage) => boolean;
  readonly #streams = new Map<RunId, Stream>();

  constructor(send: (message: ClientMessage) => boolean) {
    this.#send = send;
  }

  /** Follows a run; the answer ends it. */
  follow(run: RunId, watcher: Watcher): () => void {
    const known = this.#streams.get(run);
    const stream = known ?? { pieces: [], next: 0, open: false, done: false, problem: null, watchers: new Set() };
    stream.watchers.add(watcher);
    if (known) {
      watcher.pieces(stream.pieces);
      if (stream.done) this.#end(stream, [watcher]);
    } else {
      this.#streams.set(run, stream);
      this.#openNext();
    }
    return () => this.#leave(run, watcher);
  }

  received(message: { run: RunId; pieces: OutputPiece[]; done: boolean }): void {
    const stream = this.#streams.get(message.run);
    if (!stream || stream.done) {
      return;
    }
    const fresh = message.pieces.filter((piece) => piece.seq >= stream.next);
    const last = fresh[fresh.length - 1];
    if (last) {
      stream.pieces.push(...fresh);
      stream.next = last.seq + 1;
      for (const watcher of [...stream.watchers]) watcher.pieces(fresh);
    }
    if (message.done) this.#ended(stream);
  }

  /** The controller does not send a run's output, or no longer. */
  unfollowed(message: { run: RunId; reason: string }): void {
    const stream = this.#streams.get(message.run);
    if (stream && !stream.done) {
      stream.problem = message.reason;
      this.#ended(stream);
    }
  }

  /** The link is new: asks for the rest of everything. */
  again(): void {
    for (const stream of this.#streams.values()) stream.open = false;
    this.#openNext();
  }

  #ended(stream: Stream): void {
    stream.done = true;
    stream.open = false;
    this.#end(stream, [...stream.watchers]);
    this.#openNext();
  }

  #end(stream: Stream, watchers: Watcher[]): void {
    for (const watcher of watchers) {
      if (stream.problem !== null) watcher.problem?.(stream.problem);
      watcher.done();
    }
  }

  /** Asks for as many as there is room for, in the order in which they were wanted. */
  #openNext(): void {
    let open = [...this.#streams.values()].filter((stream) => stream.open).length;
    for (const [run, stream] of this.#streams) {
      if (open >= MAX_FOLLOWED) return;
      if (stream.open || stream.done) continue;
      stream.open = true;
      open += 1;
      this.#send({ type: "follow", run, from: stream.next });
    }
  }

  #leave(run: RunId, watcher: Watcher): void {
    const stream = this.#streams.get(run);
    if (stream?.watchers.delete(watcher) && stream.watchers.size === 0) {
      this.#streams.delete(run);
      if (stream.open) {
        this.#send({ type: "unfollow", run });
        this.#openNext();
      }
    }
  }
}
