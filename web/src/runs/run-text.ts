// How a run stands, in a mark, a class and a few words.

import type { Run, RunState } from "../protocol/types";
import { duration } from "../ui/format";

export const STATE_CLASS: Record<RunState, string> = {
  queued: "dim",
  dispatched: "dim",
  running: "warning",
  succeeded: "ok",
  failed: "critical",
  timed_out: "critical",
  cancelled: "warning",
  rejected: "critical",
  expired: "warning",
  lost: "critical",
};

export const STATE_MARK: Record<RunState, string> = {
  queued: "·",
  dispatched: "›",
  running: "▶",
  succeeded: "✔",
  failed: "✖",
  timed_out: "✖",
  cancelled: "■",
  rejected: "✖",
  expired: "✖",
  lost: "?",
};

/** How far a run is: what is over, well or badly, then what is on its way. */
const PROGRESS: RunState[] = [
  "succeeded",
  "failed",
  "timed_out",
  "lost",
  "rejected",
  "expired",
  "cancelled",
  "running",
  "dispatched",
  "queued",
];

/** A group's counts in the order of progress. */
export function inOrder(states: Partial<Record<RunState, number>>): Array<[RunState, number]> {
  return PROGRESS.flatMap((state): Array<[RunState, number]> => (states[state] ? [[state, states[state]]] : []));
}

export const stateName = (state: RunState): string => state.replace("_", " ");

/** `38 ms`; while it runs, up to now. */
export function took(run: Run, now: number): string {
  if (!run.started_at) {
    return "";
  }
  const end = run.finished_at ? Date.parse(run.finished_at) : now;
  return duration(end - Date.parse(run.started_at));
}

/**
 * The exit code that a task gave itself. That of a process that was ended from outside is its
 * signal's: the state and its reason say why.
 */
export function exitCode(run: Run): number | null {
  return run.state === "succeeded" || run.state === "failed" ? run.exit_code : null;
}

/** How a run stands in a few words: `exit 100 · 12.4 s`, `timed out · 30.0 s`, `38 ms`. */
export function outcome(run: Run, now: number): string {
  const name = stateName(run.state);
  const time = took(run, now);
  if (run.state === "succeeded") {
    return time || name;
  }
  const failed = run.state === "failed" && (run.reason ?? (run.exit_code === null ? "" : `exit ${run.exit_code}`));
  return [failed || name, time].filter(Boolean).join(" · ");
}

/** What is known of how a run stands besides its state's name, each thing once. */
export function details(run: Run, now: number): string[] {
  const code = exitCode(run);
  return [code === null || code === 0 ? "" : `exit ${code}`, took(run, now), reasonBeside(run)].filter(Boolean);
}

/** The reason of a run's end without the name of its state, which stands before it. */
export function reasonBeside(run: Run): string {
  const name = stateName(run.state);
  const reason = run.reason ?? "";
  return reason.startsWith(name) ? reason.slice(name.length).replace(/^[\s;:,]+/, "") : reason;
}

/** `unit=ssh lines=100` */
export function argumentText(run: Run): string {
  return Object.entries(run.args)
    .map(([name, value]) => `${name}=${String(value)}`)
    .join(" ");
}
