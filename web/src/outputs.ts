// The output of the runs that somebody looks at: one stream for each run, shared by everything on the page that shows it.
//
// What came is kept while somebody looks, so that a second view begins at the beginning; after a lost link the stream goes on where it stopped.

import type { ClientMessage, OutputPiece, RunId } from "./protocol/types";

export interface Watcher {
  /** Pieces in order, each once. */
  pieces(pieces: OutputPiece[]): void;
  /** The run is final and everything was given. */
  done(): void;
}

interface Stream {
  pieces: OutputPiece[];
  next: number;
  done: boolean;
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
    let stream = this.#streams.get(run);
    if (!stream) {
      stream = { pieces: [], next: 0, done: false, watchers: new Set() };
      this.#streams.set(run, stream);
      this.#send({ type: "follow", run, from: 0 });
    } else {
      watcher.pieces(stream.pieces);
      if (stream.done) {
        watcher.done();
      }
    }
    stream.watchers.add(watcher);
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
    }
    stream.done = message.done;
    for (const watcher of [...stream.watchers]) {
      if (fresh.length > 0) watcher.pieces(fresh);
      if (message.done) watcher.done();
    }
  }

  /** The link is new: asks for the rest of everything. */
  again(): void {
    for (const [run, stream] of this.#streams) {
      if (!stream.done) {
        this.#send({ type: "follow", run, from: stream.next });
      }
    }
  }

  #leave(run: RunId, watcher: Watcher): void {
    const stream = this.#streams.get(run);
    if (stream?.watchers.delete(watcher) && stream.watchers.size === 0) {
      this.#streams.delete(run);
      if (!stream.done) {
        this.#send({ type: "unfollow", run });
      }
    }
  }
}
