// What the mock answers in the terminal: runs of tasks, as the tests time them, and fixed answers
// to fixed lines.
// The language itself is the controller's, and tested there: nothing here parses more than a test
// types.

import type { Completion, ServerMessage } from "../src/protocol/types";
import { type MockController, Refused } from "./controller";
import { TASKS } from "./tasks";

export interface Conversation {
  send(message: ServerMessage): void;
  /** Asks yes or no. */
  ask(id: number, question: string): Promise<boolean>;
  account: string;
}

const cyan = (text: string): string => `\u001b[36m${text}\u001b[0m`;
const red = (text: string): string => `\u001b[31m${text}\u001b[0m`;

export async function command(controller: MockController, talk: Conversation, id: number, line: string): Promise<void> {
  const print = (text: string): void => talk.send({ type: "text", id, text: `${text}\n` });
  try {
    await controller.answering;
    await perform(controller, talk, id, line, print);
    talk.send({ type: "done", id, ok: true });
  } catch (error) {
    print(`${red("✖")} ${error instanceof Error ? error.message : String(error)}`);
    talk.send({ type: "done", id, ok: false });
  }
}

async function perform(
  controller: MockController,
  talk: Conversation,
  id: number,
  line: string,
  print: (text: string) => void,
): Promise<void> {
  const [first = "", second = "", ...rest] = line.trim().split(/\s+/);
  const list = [...controller.machines.values()].map(({ machine }) => `${cyan(machine.id.padEnd(12))}${machine.label}`);
  if (first === "help") print(`${cyan("task cancel <run>".padEnd(48))} end a run`);
  else if (first === "pis") print(list.join("\n"));
  else if (first === "clear") talk.send({ type: "perform", id, action: { type: "clear" } });
  else if (first === "theme") talk.send({ type: "perform", id, action: { type: "theme", name: second || null } });
  else if (line === "task list") print(catalogue());
  else if (first === "task" && second === "run") await run(controller, talk, id, rest, print);
  else throw new Refused(422, `there is no command "${first}"; type help`);
}

function catalogue(): string {
  const lines = TASKS.map((task) => `${cyan(task.id.padEnd(18))}${task.label.padEnd(18)}${task.description}`);
  return [...lines, `${TASKS.length} tasks`].join("\n");
}

async function run(
  controller: MockController,
  talk: Conversation,
  id: number,
  [task = "", target = "", ...words]: string[],
  print: (text: string) => void,
): Promise<void> {
  const args = Object.fromEntries(words.map((word) => word.split("=") as [string, string]));
  const targets = controller.targets(target).map(({ machine }) => machine.label);
  const on = targets.length === 1 ? targets[0] : `${targets.length} machines`;
  const question = TASKS.find((each) => each.id === task)?.confirm && `Run ${cyan(task)} on ${on}?`;
  if (question && !(await talk.ask(id, question))) print("not run");
  else talk.send({ type: "started", id, ...controller.request({ task, target, args, confirmed: true }, talk.account) });
}

/** How many candidates one answer has at most, as the controller's. */
const MAX_CANDIDATES = 50;

/**
 * Candidates for the word at the cursor: those of the first pattern that what stands before it
 * matches.
 */
export function complete(
  { machines }: MockController,
  line: string,
  cursor: number,
): { start: number; candidates: Completion[] } {
  const before = line.slice(0, cursor);
  const start = /"[^"]*$/.exec(before)?.index ?? before.length - (/\S*$/.exec(before)?.[0].length ?? 0);
  const word = before.slice(start).replace(/^"/, "").toLowerCase();
  const words = (...values: string[]): Completion[] => values.map((value) => ({ value, hint: "" }));
  const fleet = [...machines.values()].map(({ machine: { id, label } }) => ({ value: id, hint: label }));
  const labels = fleet.map(({ value, hint }) => ({ value: /\s/.test(hint) ? `"${hint}"` : hint, hint: value }));
  const tasks = TASKS.map(({ id, label }) => ({ value: id, hint: label }));
  const candidates: Array<[RegExp, Completion[]]> = [
    [/^$/, words("task", "assign", "pis", "runs", "show", "tag", "help", "clear", "theme")],
    [/^task $/, words("list", "run", "cancel", "assign")],
    [/^task run $/, tasks],
    [/^task run \S+ $/, fleet],
    [/^task run service-log \S+ $/, words(...(word.includes("=") ? ["unit=ssh", "unit=cron"] : ["unit=", "lines="]))],
    [/^task run service-log \S+ unit=ssh $/, words(word.includes("=") ? "lines=100" : "lines=")],
    [/^task run ping \S+ $/, words("verbose=true", "verbose=false")],
    [/^assign name $/, labels],
    [/^runs $/, fleet],
  ];
  const fitting = (candidates.find(([pattern]) => pattern.test(before.slice(0, start)))?.[1] ?? []).filter(
    ({ value, hint }) =>
      value.replace(/^"/, "").toLowerCase().startsWith(word) || (word !== "" && hint.toLowerCase().startsWith(word)),
  );
  return { start, candidates: fitting.slice(0, MAX_CANDIDATES) };
}
