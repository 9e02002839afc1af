// A run, or a run on many machines, as a live block in the terminal.
//
// A block writes through its `Paper` and ends by itself, or is left. It cannot slow the run: what
// the terminal has not drawn is bounded.

import { commands } from "../live/commands";
import { live } from "../live/live.svelte";
import { isFinal } from "../live/store";
import type { OutputPiece, Run, RunId } from "../protocol/types";
import { details, stateName } from "../runs/run-text";
import { bytes, count, duration, shortId } from "../ui/format";
import { visibleLine } from "../ui/text";
import { bar, columns, cut, Framed, paint, wrapped } from "./paint";

/** Where a block writes. */
export interface Paper {
  write(text: string): void;
  /** Bytes that were written and are not drawn yet. */
  pending(): number;
  columns(): number;
}

export interface Block {
  /** The block is over; what stands below it may be written. */
  finished: Promise<void>;
  /** Looks away; the run goes on. */
  leave(): void;
  /** What a cancel would end. */
  readonly target: RunId;
}

/** Beyond so much undrawn text, output is skipped here: it is all in the run's page. */
const HIGH_WATER = 1 << 20;

/** How long a block waits for its run's name, in milliseconds. */
const NAMED_WITHIN = 1_000;

/** How often a group's block is drawn anew, in milliseconds. */
const REDRAW_EVERY = 120;

/**
 * How many running machines of a group are listened to: their places are shared with every other
 * view of this page.
 */
const LISTENED = 8;

/** How long a group that is over waits for the last lines of those that failed, in milliseconds. */
const READ_WITHIN = 2_000;

/** How many lines a group's block shows below its bar. */
const LINES = 5;

/** How many columns a machine's name takes before each line of its run. */
const TAG = 18;

/**
 * Does something once the store knows what it is about, or after a while all the same; the answer
 * calls it off.
 */
function whenNamed(known: () => boolean, act: () => void): () => void {
  const off = (): void => {
    stop();
    clearTimeout(latest);
  };
  const go = (): void => {
    off();
    act();
  };
  const stop = commands.onChange(() => known() && go());
  const latest = setTimeout(go, known() ? 0 : NAMED_WITHIN);
  return off;
}

/**
 * A bar and its counts in so many columns: a line that wrapped could not be drawn over. Words give
 * way first, then the bar.
 */
export function progress(share: number, counts: (words: boolean) => string, width: number): string {
  const text = [counts(true), counts(false)].find((each) => columns(each) + 8 <= width) ?? counts(false);
  const room = Math.min(24, width - columns(text) - 1);
  return room < 4 ? text : `${bar(share, room)} ${text}`;
}

export function machineLabel(pi: string): string {
  return visibleLine(live.state.machines.get(pi)?.machine.label ?? pi);
}

/** How a run ended, in the words of the footer. */
export function ending(run: Run): string {
  const dropped = run.dropped_bytes > 0 ? [`${bytes(run.dropped_bytes)} left out`] : [];
  const rest = paint.dim(
    [...(run.state === "succeeded" ? ["exit 0"] : []), ...details(run, 0), ...dropped].map(visibleLine).join(" · "),
  );
  return run.state === "succeeded"
    ? `${paint.green("✔ finished")} ${rest}`
    : `${paint.red(`✖ ${stateName(run.state)}`)} ${rest}`;
}

export class RunBlock implements Block {
  readonly target: RunId;
  readonly finished: Promise<void>;
  readonly #paper: Paper;
  readonly #framed: Framed;
  readonly #guest: boolean;
  #resolve: () => void = () => undefined;
  #stop: Array<() => void> = [];
  #complete = false;
  #skipped = 0;
  #waiting: ReturnType<typeof setTimeout> | undefined;

  /**
   * `guest` is set for a run that was started elsewhere: it says whether its lines stand alone at
   * the moment.
   */
  constructor(run: RunId, paper: Paper, guest?: { alone: () => boolean }) {
    this.target = run;
    this.#paper = paper;
    this.#guest = guest !== undefined;
    this.#framed = new Framed(() =>
      guest === undefined || guest.alone() ? "" : cut(machineLabel(live.state.runs.get(run)?.pi ?? ""), TAG),
    );
    this.finished = new Promise((resolve) => (this.#resolve = resolve));
    this.#open();
  }

  leave(): void {
    this.#paper.write(this.#framed.end());
    this.#close();
  }

  /** Begins once the run's own change has come, or without it when it does not come soon. */
  #open(): void {
    this.#stop = [
      whenNamed(
        () => live.state.runs.has(this.target),
        () => this.#begin(),
      ),
    ];
  }

  #begin(): void {
    const run = live.state.runs.get(this.target);
    const name = run ? `${run.task} · ${machineLabel(run.pi)} · run ${shortId(run.id)}` : `run ${shortId(this.target)}`;
    const by = this.#guest && run ? ` · started by ${visibleLine(run.requested_by)}` : "";
    this.#say(paint.dim(`┌ ${name}${by}`));
    this.#stop = [
      commands.onChange(() => this.#check()),
      live.outputs.follow(this.target, {
        pieces: (pieces) => this.#print(pieces),
        done: () => this.#done(),
        problem: (reason) =>
          this.#say(
            `${this.#framed.mark("│")} ${paint.yellow(`… not followed any more: ${visibleLine(reason)}; its output is at #/runs/${this.target} …`)}`,
          ),
      }),
    ];
    this.#waiting = setTimeout(() => this.#explainWaiting(), 1_500);
  }

  /** A line of the block's own, which goes on at a word. */
  #say(text: string): void {
    this.#paper.write(`${this.#framed.end()}${wrapped(text, this.#paper.columns())}\r\n`);
  }

  #explainWaiting(): void {
    const run = live.state.runs.get(this.target);
    if (run?.state === "queued") {
      this.#say(
        `${this.#framed.mark("│")} ${paint.yellow(`waits for ${machineLabel(run.pi)}`)}${paint.dim(" · Ctrl-C looks away")}`,
      );
    }
  }

  #print(pieces: OutputPiece[]): void {
    if (this.#paper.pending() > HIGH_WATER) {
      this.#skipped += pieces.reduce((sum, piece) => sum + piece.data.length, 0);
      return;
    }
    this.#mention();
    this.#paper.write(this.#framed.pieces(pieces));
  }

  #mention(): void {
    if (this.#skipped > 0) {
      this.#say(
        `${this.#framed.mark("│")} ${paint.yellow(`… ${bytes(this.#skipped)} skipped here, all of it is at #/runs/${this.target} …`)}`,
      );
      this.#skipped = 0;
    }
  }

  #done(): void {
    this.#complete = true;
    this.#check();
  }

  #check(): void {
    const run = live.state.runs.get(this.target);
    if (this.#complete && run && isFinal(run.state)) {
      this.#mention();
      this.#say(`${this.#framed.mark("└")} ${ending(run)}`);
      this.#close();
    }
  }

  #close(): void {
    clearTimeout(this.#waiting);
    for (const stop of this.#stop) stop();
    this.#stop = [];
    this.#resolve();
  }
}

export class GroupBlock implements Block {
  readonly target: RunId;
  readonly finished: Promise<void>;
  readonly #runs: readonly RunId[];
  readonly #paper: Paper;
  readonly #lines = new Map<RunId, string>();
  /** The runs that are listened to, and how that ends. */
  readonly #followed = new Map<RunId, () => void>();
  /** The runs whose output was received completely. */
  readonly #read = new Set<RunId>();
  readonly #began = performance.now();
  #resolve: () => void = () => undefined;
  #stop: Array<() => void> = [];
  #drawn = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #readTimer: ReturnType<typeof setTimeout> | undefined;
  #over = false;

  constructor(group: RunId, runs: readonly RunId[], paper: Paper) {
    this.target = group;
    this.#runs = runs;
    this.#paper = paper;
    this.finished = new Promise((resolve) => (this.#resolve = resolve));
    this.#await();
  }

  leave(): void {
    this.#close();
  }

  /** Begins once the group's own change has come, or without it when it does not come soon. */
  #await(): void {
    this.#stop = [
      whenNamed(
        () => live.state.groups.has(this.target),
        () => this.#open(),
      ),
    ];
  }

  #open(): void {
    const task = live.state.groups.get(this.target)?.task ?? live.state.runs.get(this.#runs[0] ?? "")?.task ?? "runs";
    this.#paper.write(`${paint.dim(`┌ ${task} · ${count(this.#runs.length, "machine")}`)}\r\n`);
    this.#stop = [commands.onChange(() => this.#soon())];
    this.#draw();
  }

  /** Listens to whatever is to be shown, and to nothing else. */
  #heed(wanted: ReadonlySet<RunId>): void {
    for (const [run, leave] of this.#followed) {
      if (!wanted.has(run)) {
        this.#followed.delete(run);
        leave();
      }
    }
    for (const run of wanted) {
      if (!this.#followed.has(run)) {
        const done = (): void => {
          this.#read.add(run);
          this.#soon();
        };
        this.#followed.set(run, live.outputs.follow(run, { pieces: (pieces) => this.#received(run, pieces), done }));
      }
    }
  }

  #received(run: RunId, pieces: OutputPiece[]): void {
    const lines = pieces
      .map((piece) => piece.data)
      .join("")
      .split("\n")
      .filter((line) => line.trim() !== "");
    const last = lines[lines.length - 1];
    if (last !== undefined) {
      // Newest last, so that the map's end is what was received last.
      this.#lines.delete(run);
      this.#lines.set(run, visibleLine(last.replace(/\u001b\[[\d;:]*m/g, "").trim()));
      this.#soon();
    }
  }

  #soon(): void {
    if (!this.#over) {
      this.#timer ??= setTimeout(() => {
        this.#timer = undefined;
        this.#draw();
      }, REDRAW_EVERY);
    }
  }

  #draw(): void {
    const runs = this.#runs.map((id) => live.state.runs.get(id)).filter((run): run is Run => run !== undefined);
    const failed = runs.filter((run) => isFinal(run.state) && run.state !== "succeeded");
    const succeeded = runs.length - failed.length - runs.filter((run) => !isFinal(run.state)).length;
    const running = runs.filter((run) => run.state === "running");
    const done = succeeded + failed.length;
    const total = this.#runs.length;
    const waiting = total - done - running.length;
    const counts = (words: boolean): string =>
      [
        `${done}/${total} `,
        paint.green(`${succeeded} ✔`),
        failed.length > 0 ? paint.red(`${failed.length} ✖`) : "",
        running.length > 0 ? paint.dim(`${running.length} ${words ? "running" : "▶"}`) : "",
        waiting > 0 ? paint.dim(`${waiting} ${words ? "waiting" : "·"}`) : "",
      ]
        .filter(Boolean)
        .join(" ");
    const over = done === total && total > 0;
    const wrong = failed.slice(-(over ? LINES * 2 : LINES - 2));
    const unread = wrong.map((run) => run.id).filter((run) => !this.#read.has(run));
    this.#heed(new Set([...unread, ...running.slice(0, LISTENED).map((run) => run.id)]));
    this.#redraw([
      progress(done / Math.max(total, 1), counts, this.#paper.columns() - 3),
      ...this.#interesting(wrong, over),
    ]);
    if (over && unread.length === 0) {
      this.#finish(succeeded, failed.length);
    } else if (over) {
      this.#readTimer ??= setTimeout(() => this.#finish(succeeded, failed.length), READ_WITHIN);
    }
  }

  /** Failures, then what was received last. */
  #interesting(failed: Run[], over: boolean): string[] {
    const width = this.#paper.columns() - 3;
    const line = (run: Run, paintLabel: (text: string) => string): string => {
      const label = machineLabel(run.pi);
      const text = this.#lines.get(run.id) ?? run.reason ?? stateName(run.state);
      return `${paintLabel(cut(label, width))}  ${cut(visibleLine(text), Math.max(4, width - columns(label) - 2))}`;
    };
    const wrong = failed.map((run) => line(run, paint.red));
    if (over) {
      return wrong;
    }
    const latest = [...this.#lines.keys()]
      .map((id) => live.state.runs.get(id))
      .filter((run): run is Run => run?.state === "running");
    return [...wrong, ...latest.slice(-Math.max(1, LINES - wrong.length)).map((run) => line(run, paint.bright))];
  }

  #redraw(lines: string[]): void {
    const back = this.#drawn > 0 ? `\u001b[${this.#drawn}A\r\u001b[J` : "";
    this.#paper.write(back + lines.map((line) => `${paint.dim("│")} ${line}\r\n`).join(""));
    this.#drawn = lines.length;
  }

  #finish(succeeded: number, failed: number): void {
    const stopped = live.state.groups.get(this.target)?.stopped;
    const how =
      failed === 0
        ? paint.green(`✔ finished on ${succeeded}`)
        : `${paint.green(`✔ ${succeeded}`)} ${paint.red(`✖ ${failed} failed`)}`;
    this.#paper.write(
      `${paint.dim("└")} ${how} ${paint.dim(`· ${duration(performance.now() - this.#began)}${stopped ? ` · ${visibleLine(stopped)}` : ""}`)}\r\n`,
    );
    this.#close();
  }

  #close(): void {
    this.#over = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#readTimer);
    this.#heed(new Set());
    for (const stop of this.#stop) stop();
    this.#stop = [];
    this.#resolve();
  }
}
