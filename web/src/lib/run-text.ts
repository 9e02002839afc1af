// How a run stands, in a mark, a class and a few words.

import type { Run, RunState } from "../protocol/types";
import { duration } from "./format";

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
const PROGRESS: RunState[] = ["succeeded", "failed", "timed_out", "lost", "rejected", "expired", "cancelled", "running", "dispatched", "queued"];

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

/** `exit 100 · 12.4 s` */
export function outcome(run: Run, now: number): string {
  const exit = run.exit_code !== null && run.exit_code !== 0 ? `exit ${run.exit_code}` : run.state === "succeeded" || run.state === "failed" ? "" : stateName(run.state);
  return [exit, took(run, now)].filter(Boolean).join(" · ");
}

/** `unit=ssh lines=100` */
export function argumentText(run: Run): string {
  return Object.entries(run.args).map(([name, value]) => `${name}=${String(value)}`).join(" ");
}
