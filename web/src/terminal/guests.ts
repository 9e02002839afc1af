// Runs that were started elsewhere: by mosquitto_pub, the command line, a button, another browser.
// The terminal shows them above its prompt.

import { commands } from "../live/commands";
import { live } from "../live/live.svelte";
import type { Run, RunId } from "../protocol/types";
import { count } from "../ui/format";
import { visibleLine } from "../ui/text";
import { machineLabel, type Paper, RunBlock } from "./blocks";
import { paint, wrapped } from "./paint";

/**
 * How long a run may turn out to be this terminal's own, in milliseconds: the answer to its command
 * may come after the news of it.
 */
const OWN_WITHIN = 400;

/**
 * How many runs are shown at a time: a run that waits for an offline machine must not hide the
 * others.
 */
const SHOWN = 4;

/** How many runs that wait for their machines are remembered. */
const QUEUED = 1_000;

/** How many runs wait to be shown; those beyond are only counted. */
const WAITING = 20;

/** Text of which only whole lines are passed on, since what stands below it is being typed. */
export class WholeLines implements Paper {
  #rest = "";

  constructor(
    private readonly above: (text: string) => void,
    private readonly paper: Omit<Paper, "write">,
  ) {}

  write(text: string): void {
    const all = this.#rest + text;
    const end = all.lastIndexOf("\r\n");
    this.#rest = all.slice(end < 0 ? 0 : end + 2);
    if (end >= 0) {
      // A progress display writes its line many times; its last word is what counts.
      const lines = all.slice(0, end).split("\r\n");
      this.above(
        lines
          .map((line) => `${line.slice(line.lastIndexOf("\r\u001b[2K") + 1).replace(/^\u001b\[2K/, "")}\r\n`)
          .join(""),
      );
    }
  }

  pending(): number {
    return this.paper.pending();
  }

  columns(): number {
    return this.paper.columns();
  }
}

export class Guests {
  readonly #own = new Set<RunId>();
  readonly #groups = new Set<RunId>();
  readonly #queued = new Set<RunId>();
  #waiting: Run[] = [];
  #passed = 0;
  #shown = 0;
  /** Blocks that have not ended. */
  #open = 0;

  constructor(
    private readonly above: (text: string) => void,
    private readonly paper: Omit<Paper, "write">,
  ) {
    commands.onBegan((run) => setTimeout(() => this.#began(live.state.runs.get(run.id) ?? run), OWN_WITHIN));
    commands.onChange(() => this.#changed());
  }

  /** These are shown by the command that started them. */
  own(runs: readonly RunId[], group: RunId | null): void {
    for (const run of runs) this.#own.add(run);
    if (group !== null) this.#own.add(group);
  }

  #began(run: Run): void {
    if (this.#own.has(run.id) || (run.group !== null && this.#own.has(run.group))) {
      return;
    }
    if (run.group !== null) {
      return this.#groupBegan(run, run.group);
    }
    if (run.state === "queued") {
      return this.#queue(run);
    }
    this.#begins(run);
  }

  /** A run that waits for its machine takes no place: it is shown when it begins. */
  #queue(run: Run): void {
    this.#remark(`· ${run.task} waits for ${machineLabel(run.pi)} · started by ${visibleLine(run.requested_by)}`);
    this.#queued.add(run.id);
    while (this.#queued.size > QUEUED) this.#queued.delete([...this.#queued][0] ?? "");
  }

  #changed(): void {
    for (const id of this.#queued) {
      const run = live.state.runs.get(id);
      if (run?.state !== "queued") this.#queued.delete(id);
      if (run && run.state !== "queued" && !this.#own.has(id)) this.#begins(run);
    }
  }

  #begins(run: Run): void {
    if (this.#waiting.length >= WAITING) {
      this.#passed += 1;
    } else {
      this.#waiting.push(run);
      void this.#show();
    }
  }

  #groupBegan(run: Run, group: RunId): void {
    if (!this.#groups.has(group)) {
      this.#groups.add(group);
      this.#remark(
        `┌ ${run.task} on many machines · started by ${visibleLine(run.requested_by)} · its progress is under runs`,
      );
    }
  }

  #remark(text: string): void {
    this.above(`${paint.dim(wrapped(text, this.paper.columns()))}\r\n\r\n`);
  }

  async #show(): Promise<void> {
    if (this.#shown >= SHOWN) {
      return;
    }
    this.#shown += 1;
    for (let run = this.#waiting.shift(); run !== undefined; run = this.#waiting.shift()) {
      this.#open += 1;
      await new RunBlock(run.id, new WholeLines(this.above, this.paper), { alone: () => this.#open === 1 }).finished;
      this.#open -= 1;
      // Between blocks that stand one below the other; not into one that goes on.
      if (this.#open === 0) this.above("\r\n");
    }
    this.#shown -= 1;
    if (this.#passed > 0) {
      this.#remark(`… and ${count(this.#passed, "more run", "more runs")} started elsewhere: see runs`);
      this.#passed = 0;
    }
  }
}
