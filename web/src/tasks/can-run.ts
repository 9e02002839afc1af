// Where a task can run, and why not: the controller decides it, and a browser only shows it. Pure.

import type { CannotRun, Machine, TaskView } from "../protocol/types";

/** Why a machine cannot run a task; nothing where it can, or is not known. */
export function obstacle(machine: Machine | undefined, task: TaskView): CannotRun | undefined {
  return machine?.cannot_run.find((each) => each.tasks.includes(task.id));
}

/**
 * Whether a task is meant for a machine by the catalogue: where it is not, nothing is missing
 * there.
 */
export function isMeantFor(machine: Machine | undefined, task: TaskView): boolean {
  return obstacle(machine, task)?.reason !== "not_on";
}

/** Machines that cannot run a task, for the same reason. */
export interface Blocked {
  message: string;
  machines: Machine[];
}

/** Which of some machines cannot run a task, by the reason. */
export function blockedOf(machines: readonly Machine[], task: TaskView): Blocked[] {
  const found = new Map<string, Machine[]>();
  for (const machine of machines) {
    const message = obstacle(machine, task)?.message;
    if (message !== undefined) found.set(message, [...(found.get(message) ?? []), machine]);
  }
  return [...found].map(([message, those]) => ({ message, machines: those }));
}
