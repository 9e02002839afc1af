// What people do from anywhere on the page: each one call, one answer in words.

import { api, Refusal, sentence } from "../live/api";
import { live } from "../live/live.svelte";
import type { AcceptedRuns, ArgumentValue, Machine, NewRun, Role, Run, TaskView } from "../protocol/types";
import { count } from "./format";
import { isTheme, settings, THEMES } from "./settings.svelte";
import { visible } from "./text";
import { go, toRun, ui } from "./ui.svelte";

const RANK: Record<Role, number> = { viewer: 0, operator: 1, admin: 2 };

/** Whether who is signed in may do what needs this role. */
export function may(role: Role): boolean {
  return live.me !== null && RANK[live.me.role] >= RANK[role];
}

/**
 * Runs a task, asking first where the catalogue wants it; null when the person said no or the
 * controller refused.
 */
export async function runTask(
  task: TaskView,
  target: string,
  args: Record<string, ArgumentValue>,
  group?: NewRun["group"],
): Promise<AcceptedRuns | null> {
  const run: NewRun = { task: task.id, target, args, confirmed: false, ...(group ? { group } : {}) };
  if (task.confirm) {
    if (
      !(await ui.confirm(`Run ${task.label} on ${targetName(target)}?`, "run it", {
        detail: task.description,
        danger: true,
      }))
    ) {
      return null;
    }
    run.confirmed = true;
  }
  try {
    return await api.run(run);
  } catch (error) {
    ui.toast(sentence(error), true);
    return null;
  }
}

/** Runs and shows the run. */
export async function runAndShow(
  task: TaskView,
  target: string,
  args: Record<string, ArgumentValue>,
  group?: NewRun["group"],
): Promise<void> {
  const accepted = await runTask(task, target, args, group);
  const id = accepted && (accepted.group ?? accepted.runs[0]);
  if (id) {
    go(toRun(id));
  }
}

export async function runAgain(run: Run): Promise<void> {
  const task = live.state.tasks.find((known) => known.id === run.task);
  if (!task) {
    ui.toast(`${run.task} is no longer in the catalogue.`, true);
    return;
  }
  await runAndShow(task, run.pi, run.args as Record<string, ArgumentValue>);
}

export async function cancelRun(run: string): Promise<void> {
  await attempt(() => api.cancel(run), "Cancelling.");
}

/** Does something, says so, and says why when it was refused. */
export async function attempt<T>(work: () => Promise<T>, done?: string): Promise<T | undefined> {
  try {
    const result = await work();
    if (done) {
      ui.toast(done);
    }
    return result;
  } catch (error) {
    if (!(error instanceof Refusal && error.status === 401)) {
      ui.toast(sentence(error), true);
    }
    return undefined;
  }
}

/** The machines of a target: one, those of a tag, or all. */
export function machinesOf(target: string): Machine[] {
  const tag = target.slice(1);
  const all = [...live.state.machines.values()].map((held) => held.machine);
  return all.filter((machine) =>
    target.startsWith("@") ? tag === "all" || machine.tags.includes(tag) : machine.id === target,
  );
}

/** A target for people: a label, or `@tag (3 machines)`. */
export function targetName(target: string): string {
  const machines = machinesOf(target);
  return target.startsWith("@")
    ? `${target} (${count(machines.length, "machine")})`
    : visible(machines[0]?.label ?? target);
}

/** Shows a theme, or says which there are. */
export function chooseTheme(name: string | null): string {
  if (name === null) {
    return THEMES.map((theme) => (theme === settings.theme ? `\u001b[1m${theme}\u001b[0m` : theme)).join("  ");
  }
  if (!isTheme(name)) {
    return `There is no theme "${name}": take ${THEMES.join(", ")}.`;
  }
  settings.theme = name;
  return `\u001b[32m✔\u001b[0m theme ${name}`;
}
