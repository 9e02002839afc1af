// What the page itself is doing: the route, the open dialog, the tab on a phone, messages that
// pass. None of it is the fleet's state.

import type { ArgumentValue, GroupOptions, PiId, TaskId } from "../protocol/types";

export type Route =
  | { view: "dashboard" }
  | { view: "machine"; pi: PiId; parameters: string }
  | { view: "runs"; pi?: PiId }
  | { view: "run"; run: string }
  | { view: "settings" };

export type Dialog =
  | { kind: "palette" }
  | { kind: "help" }
  | { kind: "add-pi" }
  | { kind: "run"; target: string; task?: TaskId; args?: Record<string, ArgumentValue>; options?: GroupOptions };

/** A yes or no that something waits for. It lies over an open dialog and takes nothing from it. */
export interface Question {
  question: string;
  action: string;
  detail?: string;
  danger?: boolean;
  answer: (yes: boolean) => void;
}

export type Tab = "terminal" | "stats" | "logs";

interface Toast {
  id: number;
  text: string;
  bad: boolean;
}

/** How long a passing message stays, in milliseconds. */
const TOAST_STAYS = 6_000;

const EVERY_RUN = { text: "", task: "", state: "", pi: "" };

class Ui {
  route = $state.raw<Route>(parse(location.hash));
  dialog = $state.raw<Dialog | null>(null);
  question = $state.raw<Question | null>(null);
  tab = $state<Tab>("stats");
  filter = $state("");
  /** What RUNS and LOGS are filtered by: kept while another view is open. */
  runs = $state({ ...EVERY_RUN });
  logs = $state({ text: "", kind: "all", pi: "" });
  /** The machine that the arrows have reached. */
  selected = $state<PiId | null>(null);
  toasts = $state.raw<Toast[]>([]);
  /** How often the view changed. */
  moves = 0;
  /** The address that was arrived at last. */
  #address = location.hash;
  #lastToast = 0;
  #dialogs: Array<(text: string) => void> = [];

  start(): void {
    this.#arrived();
    addEventListener("hashchange", () => this.moved());
  }

  /**
   * The address has changed. The browser's event comes later, also when `go` has already handled
   * the change.
   */
  moved(): void {
    if (location.hash !== this.#address) {
      this.#address = location.hash;
      this.moves += 1;
      this.#arrived();
    }
  }

  /**
   * Gives this view other parameters: it stays the same view, and one entry of the browser's
   * history.
   */
  parameters(values: Record<string, string>): void {
    const text = new URLSearchParams(values).toString();
    const [path = ""] = location.hash.split("?");
    history.replaceState(null, "", text === "" ? path : `${path}?${text}`);
    this.#address = location.hash;
    this.route = parse(location.hash);
  }

  #arrived(): void {
    this.route = parse(location.hash);
    this.dialog = null;
    if (this.route.view === "runs" && this.route.pi !== undefined) {
      this.runs = { ...EVERY_RUN, pi: this.route.pi };
    }
  }

  /**
   * Says something for a while; what was refused, in the dialog that lies over everything, if there
   * is one.
   */
  toast(text: string, bad = false): void {
    const dialog = this.#dialogs[this.#dialogs.length - 1];
    if (bad && dialog) {
      return dialog(text);
    }
    this.#lastToast += 1;
    const id = this.#lastToast;
    this.toasts = [...this.toasts.slice(-3), { id, text, bad }];
    setTimeout(() => this.dismiss(id), TOAST_STAYS);
  }

  /** A dialog lies over everything from now on, and shows what is refused; the answer ends that. */
  over(refused: (text: string) => void): () => void {
    this.#dialogs.push(refused);
    return () => void (this.#dialogs = this.#dialogs.filter((each) => each !== refused));
  }

  dismiss(id: number): void {
    this.toasts = this.toasts.filter((toast) => toast.id !== id);
  }

  /** Asks yes or no. */
  confirm(question: string, action: string, options: { detail?: string; danger?: boolean } = {}): Promise<boolean> {
    return new Promise((resolve) => {
      this.question?.answer(false);
      const answer = (yes: boolean): void => {
        this.question = null;
        resolve(yes);
      };
      this.question = { question, action, answer, ...options };
    });
  }
}

function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [first = "", second = ""] = path.split("/");
  const argument = decode(second);
  if (first === "pi" && argument) {
    return { view: "machine", pi: argument, parameters: query };
  }
  if (first === "runs") {
    const pi = new URLSearchParams(query).get("pi");
    return argument ? { view: "run", run: argument } : pi ? { view: "runs", pi } : { view: "runs" };
  }
  return first === "settings" ? { view: "settings" } : { view: "dashboard" };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}

export const ui = new Ui();

/** Goes to a view, and is there when this returns: what is opened next stays open. */
export function go(hash: string): void {
  location.hash = hash;
  ui.moved();
}

export const toMachine = (pi: PiId): string => `#/pi/${encodeURIComponent(pi)}`;
export const toRuns = (pi: PiId): string => `#/runs?pi=${encodeURIComponent(pi)}`;
export const toRun = (run: string): string => `#/runs/${encodeURIComponent(run)}`;
