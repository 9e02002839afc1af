// The terminal's language as the mock speaks it: enough of the contract's section 8 to try everything in the browser.

import type { ArgumentView, Completion, ServerMessage } from "../src/protocol/types";
import { type MockController, Refused } from "./controller";
import type { Simulated } from "./fleet";
import { TASKS } from "./tasks";

const paint = (code: number) => (text: string) => `\u001b[${code}m${text}\u001b[0m`;
const cyan = paint(36);
const green = paint(32);
const red = paint(31);
const yellow = paint(33);
const dim = paint(90);

const HELP: Array<[string, string]> = [
  ["task list", "the catalogue"],
  ["task run <task> [<pi>|@tag|@all] [name=value]…", "run a task and watch it"],
  ["task cancel <run>", "end a run"],
  ['task assign "<machine>" "<responsibility>"', "record what a machine is for"],
  ['assign name "<machine>" "<new label>"', "rename a machine"],
  ["tag add|remove <pi> <tag>", "tag a machine"],
  ["pis · runs [<pi>] · show <run>", "look"],
  ["clear · theme <name> · help", "the terminal itself"],
];

export interface Conversation {
  send(message: ServerMessage): void;
  /** Asks yes or no. */
  ask(id: number, question: string): Promise<boolean>;
  account: string;
}

export async function command(controller: MockController, talk: Conversation, id: number, line: string): Promise<void> {
  const say = (text: string): void => talk.send({ type: "text", id, text: `${text}\n` });
  try {
    await controller.answering;
    await perform(controller, talk, id, words(line), say);
    talk.send({ type: "done", id, ok: true });
  } catch (error) {
    say(`${red("✖")} ${error instanceof Error ? error.message : String(error)}`);
    talk.send({ type: "done", id, ok: false });
  }
}

export function words(line: string): string[] {
  return [...line.matchAll(/"((?:[^"\\]|\\.)*)"?|\S+/g)].map((match) =>
    match[1] === undefined ? match[0] : match[1].replace(/\\(.)/g, "$1"),
  );
}

type Say = (text: string) => void;

async function perform(
  controller: MockController,
  talk: Conversation,
  id: number,
  all: string[],
  say: Say,
): Promise<void> {
  const [first = "", second = "", ...rest] = all;
  const key = `${first} ${second}`.trim();
  if (first === "help") return say(HELP.map(([what, why]) => `${cyan(what.padEnd(48))} ${why}`).join("\n"));
  if (first === "clear") return talk.send({ type: "perform", id, action: { type: "clear" } });
  if (first === "theme") return talk.send({ type: "perform", id, action: { type: "theme", name: second || null } });
  if (first === "pis") return say(listMachines(controller));
  if (first === "runs") return say(listRuns(controller, second));
  if (key === "task list") return say(listTasks());
  if (key === "task run") return run(controller, talk, id, rest, say);
  if (key === "task cancel") {
    controller.cancel(rest[0] ?? "");
    return say(`${green("✔")} cancelling ${rest[0]}`);
  }
  if (key === "task assign") return assign(controller, rest, say);
  if (key === "assign name") return rename(controller, talk.account, rest, say);
  if (first === "tag") return tag(controller, second, rest, say);
  if (first === "show") return say(JSON.stringify(controller.runs.get(second) ?? `no run ${second}`, null, 2));
  throw new Refused(422, `there is no command "${first}"; type ${"\u001b[1m"}help${"\u001b[0m"}`);
}

function listTasks(): string {
  const width = Math.max(...TASKS.map((task) => task.id.length)) + 3;
  const labels = Math.max(...TASKS.map((task) => task.label.length)) + 2;
  const lines = TASKS.map(
    (task) =>
      `${cyan(task.id.padEnd(width))}${task.label.padEnd(labels)}${task.description}${task.confirm ? ` ${yellow("confirm")}` : ""}`,
  );
  return [...lines, `${dim(`${TASKS.length} tasks · run one with`)} task run <task-id> ${dim("[<pi-id>]")}`].join("\n");
}

function listMachines(controller: MockController): string {
  return [...controller.machines.values()]
    .map(
      ({ machine }) =>
        `${cyan(machine.id.padEnd(12))}${machine.label.padEnd(20)}${machine.status === "online" ? green(machine.status) : red(machine.status)}`,
    )
    .join("\n");
}

function listRuns(controller: MockController, pi: string): string {
  const runs = controller.newest(controller.runs, 500).filter((run) => pi === "" || run.pi === pi);
  return (
    runs
      .slice(0, 20)
      .map((run) => `${cyan(run.id)}  ${run.task.padEnd(16)}${run.pi.padEnd(12)}${run.state}`)
      .join("\n") || dim("no runs")
  );
}

function machine(controller: MockController, name: string): Simulated {
  const wanted = name.toLowerCase();
  const found = [...controller.machines.values()].filter(
    ({ machine: each }) => each.id.toLowerCase() === wanted || each.label.toLowerCase() === wanted,
  );
  if (found.length > 1)
    throw new Refused(409, `"${name}" is ambiguous: ${found.map((each) => each.machine.id).join(", ")}`);
  if (!found[0]) throw new Refused(404, `there is no machine "${name}"; list them with pis`);
  return found[0];
}

async function run(
  controller: MockController,
  talk: Conversation,
  id: number,
  rest: string[],
  say: Say,
): Promise<void> {
  const [taskName = "", ...more] = rest;
  const task = TASKS.find((each) => each.id === taskName || each.label.toLowerCase() === taskName.toLowerCase());
  if (!task) throw new Refused(404, `there is no task "${taskName}" in the catalogue; list them with task list`);
  const targetWord = more[0] && !more[0].includes("=") ? more.shift() : "controller";
  const target = targetWord?.startsWith("@") ? targetWord : machine(controller, targetWord ?? "controller").machine.id;
  const args = Object.fromEntries(
    more.map((pair) => [pair.split("=")[0] ?? "", value(pair.split("=").slice(1).join("="))]),
  );
  const targets = controller.targets(target);
  if (
    task.confirm &&
    !(await talk.ask(
      id,
      `Run ${cyan(task.id)} on ${targets.length === 1 ? targets[0]?.machine.label : `${targets.length} machines`}?`,
    ))
  ) {
    return say(dim("not run"));
  }
  const accepted = controller.request({ task: task.id, target, args, confirmed: true }, talk.account);
  talk.send({ type: "started", id, ...accepted });
}

function value(text: string): string | number | boolean {
  if (text === "true" || text === "false") return text === "true";
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

function assign(controller: MockController, [name = "", what = ""]: string[], say: Say): void {
  const found = machine(controller, name);
  found.machine.assignment = what;
  controller.machineChanged(found.machine.id);
  say(`${green("✔")} ${found.machine.label} is responsible for ${cyan(what)}`);
}

function rename(controller: MockController, account: string, [name = "", label = ""]: string[], say: Say): void {
  const found = machine(controller, name);
  found.machine.label = label;
  controller.machineChanged(found.machine.id);
  controller.event("label", "info", `renamed to ${label}`, { pi: found.machine.id, account });
  say(`${green("✔")} ${found.machine.id} is now ${label}`);
}

function tag(controller: MockController, verb: string, [name = "", what = ""]: string[], say: Say): void {
  const found = machine(controller, name);
  const plain = what.replace(/^@/, "");
  found.machine.tags =
    verb === "add" ? [...found.machine.tags, plain] : found.machine.tags.filter((each) => each !== plain);
  controller.machineChanged(found.machine.id);
  say(`${green("✔")} ${found.machine.label} ${found.machine.tags.map((each) => `@${each}`).join(" ")}`);
}

/** How many candidates one answer has at most, as the real one's. */
const MOST = 50;

/** Candidates for the word at the cursor. */
export function complete(
  controller: MockController,
  line: string,
  cursor: number,
): { start: number; candidates: Completion[] } {
  const before = line.slice(0, cursor);
  const start = /"[^"]*$/.exec(before)?.index ?? before.length - (/\S*$/.exec(before)?.[0].length ?? 0);
  const word = before.slice(start).replace(/^"/, "").toLowerCase();
  const previous = words(before.slice(0, start));
  const candidates = options(controller, previous, word).filter(
    ({ value: text, hint }) =>
      text.replace(/^"/, "").toLowerCase().startsWith(word) || (word !== "" && hint.toLowerCase().startsWith(word)),
  );
  return { start, candidates: candidates.slice(0, MOST) };
}

function options(controller: MockController, previous: string[], word: string): Completion[] {
  const is = (...wanted: string[]): boolean => wanted.every((word, index) => previous[index] === word);
  const simple = (names: string[]): Completion[] => names.map((value) => ({ value, hint: "" }));
  const machines = [...controller.machines.values()].map(({ machine: each }) => ({ value: each.id, hint: each.label }));
  const labels = machines.map(({ value: pi, hint }) => ({ value: /\s/.test(hint) ? `"${hint}"` : hint, hint: pi }));
  if (previous.length === 0) return simple(["task", "assign", "pis", "runs", "show", "tag", "help", "clear", "theme"]);
  if (previous.length === 1 && is("task")) return simple(["list", "run", "cancel", "assign"]);
  if (previous.length === 1 && is("assign")) return simple(["name"]);
  if (previous.length === 1 && is("theme")) return simple(["phosphor", "amber", "paper"]);
  if (previous.length === 1 && is("tag")) return simple(["add", "remove"]);
  if (previous.length === 2 && is("task", "run")) return TASKS.map((task) => ({ value: task.id, hint: task.label }));
  if (previous.length === 2 && (is("task", "assign") || is("assign", "name"))) return labels;
  if (previous.length === 2 && is("tag")) return machines;
  if (previous.length === 1 && is("runs")) return machines;
  if (is("task", "run")) {
    const task = TASKS.find((each) => each.id === previous[2]);
    const args = (task?.args ?? [])
      .filter((argument) => !previous.some((each) => each.startsWith(`${argument.name}=`)))
      .flatMap((argument) => given(argument, word, machines));
    return previous.length === 3 ? [...machines, { value: "@all", hint: "every machine" }, ...args] : args;
  }
  return [];
}

/** The argument's name, or its values once the name stands there. */
function given({ name, kind, default: usual }: ArgumentView, word: string, machines: Completion[]): Completion[] {
  if (!word.startsWith(`${name}=`)) return [{ value: `${name}=`, hint: kind.type }];
  const values = {
    choices: () => (kind.type === "choices" ? kind.choices.map((value) => ({ value, hint: "" })) : []),
    boolean: () => ["true", "false"].map((value) => ({ value, hint: "" })),
    machine: () => machines,
  };
  const found =
    kind.type in values
      ? values[kind.type as keyof typeof values]()
      : usual === null
        ? []
        : [{ value: String(usual), hint: "default" }];
  return found.map(({ value, hint }) => ({ value: `${name}=${/\s/.test(value) ? `"${value}"` : value}`, hint }));
}
