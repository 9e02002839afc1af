// The web terminal: a prompt, and a conversation with the controller, which alone knows the
// language.
//
// One mode at a time decides what a key means. What was typed survives a lost link and an expired
// session.

import type { Terminal } from "@xterm/xterm";
import { api, sentence } from "../live/api";
import { type Completions, commands, type Listener } from "../live/commands";
import { History } from "../live/history";
import { live } from "../live/live.svelte";
import type { Action, RunId } from "../protocol/types";
import { chooseTheme } from "../ui/actions";
import { copyText } from "../ui/text";
import { Answer } from "./answer";
import { type Block, GroupBlock, type Paper, RunBlock } from "./blocks";
import { Guests } from "./guests";
import { type Act, LineEditor, plainLine } from "./line-editor";
import { after, columns, fitted, padded, paint, plainText, wrapped } from "./paint";
import { createScreen, openScreen, type Screen, terminalTheme } from "./xterm";

const PROMPT = `${paint.green("pistat>")} `;
const PROMPT_COLUMNS = 8;

/** How many lines a paste shows before it is asked about. */
const PASTE_SHOWN = 6;

/** How many candidates Tab lists. */
const CANDIDATES_SHOWN = 40;

/** How many the controller sends at most: where there are so many, there may be more. */
const CANDIDATES_SENT = 50;

type Mode =
  | { kind: "prompt" }
  /** A command is with the controller. */
  | { kind: "busy"; id: number }
  /** A yes or no is typed. */
  | { kind: "question"; typed: Answer; answer: (yes: boolean | null) => void }
  /** Runs are watched. */
  | { kind: "watching"; block: Block };

/** How much text of other people's runs waits for the prompt. */
const MAX_ABOVE = 64 * 1024;

/** How many keys and pastes wait for the prompt. */
const MAX_AHEAD = 4_096;

/** One command from its line to the next prompt. */
interface Turn {
  over: boolean;
}

export class WebTerminal {
  readonly host = document.createElement("div");
  readonly #screen: Screen;
  readonly #editor = new LineEditor(History.load());
  #mode: Mode = { kind: "prompt" };
  /** On which row below the prompt's first the cursor stands. */
  #row = 0;
  #pending = 0;
  /** Lines of a paste that wait for their turn. */
  #queue: string[] = [];
  /** Lines of runs that were started elsewhere, while there is no prompt to put them above. */
  #above = "";
  /**
   * Keys that were pressed and lines that were pasted before the prompt was back, as they came: a
   * key may be several characters.
   */
  #ahead: Array<string | string[]> = [];
  readonly #guests = new Guests((text) => this.#writeAbove(text), {
    pending: () => this.#pending,
    columns: () => this.terminal.cols,
  });
  /** The command that is under way. */
  #turn: Turn = { over: true };

  constructor(fontSize: number, screenReader: boolean) {
    this.#screen = createScreen(fontSize, screenReader);
    this.host.className = "terminal-host";
  }

  get terminal(): Terminal {
    return this.#screen.terminal;
  }

  /** Draws itself into its host, once the host is in the page. */
  open(): void {
    const { terminal } = this;
    openScreen(terminal, this.host);
    terminal.textarea?.setAttribute("aria-label", "Terminal: type a command, help lists them");
    terminal.onData((data) => this.#typed(data));
    terminal.attachCustomKeyEventHandler((event) => this.#key(event));
    this.host.addEventListener("paste", (event) => this.#pasted(event), { capture: true });
    this.#fit();
    terminal.onResize(() => this.#resized());
    const version = live.state.controller?.version ?? "";
    this.#say(`${paint.dim(`Pi Stat ${version} — type `)}${paint.bright("help")}${paint.dim(", Tab completes.")}`);
    this.#line("");
    this.#prompt();
  }

  /** Takes the room there is, once what was written for the old width is drawn. */
  fit(): void {
    this.terminal.write("", () => this.#fit());
  }

  #fit(): void {
    if (this.host.clientWidth > 0 && this.host.clientHeight > 0) {
      this.#screen.fit.fit();
    }
  }

  resize(fontSize: number): void {
    this.terminal.options.fontSize = fontSize;
    this.fit();
  }

  retheme(): void {
    this.terminal.options.theme = terminalTheme();
  }

  setScreenReader(on: boolean): void {
    this.terminal.options.screenReaderMode = on;
  }

  /** Returns whether it has the focus now: not while it is not in the page. */
  focus(): boolean {
    this.terminal.focus();
    return this.host.contains(document.activeElement);
  }

  clear(): void {
    this.terminal.clear();
    if (this.#mode.kind === "prompt") {
      this.#redraw();
    }
  }

  /** Text that was typed before the terminal could take it, as keys. */
  type(text: string): void {
    for (const character of text) {
      this.#typed(character === "\n" ? "\r" : character);
    }
  }

  /** A key that a phone's keyboard lacks, as its terminal sequence. */
  press(data: string): void {
    this.#typed(data);
    this.focus();
  }

  find(text: string, forwards: boolean): boolean {
    return forwards ? this.#screen.search.findNext(text) : this.#screen.search.findPrevious(text);
  }

  endFind(): void {
    this.#screen.search.clearDecorations();
    this.terminal.clearSelection();
  }

  // ── Keys
  // ────────────────────

  /** Keys that the browser or the page should get instead of the prompt. */
  #key(event: KeyboardEvent): boolean {
    const control = event.ctrlKey || event.metaKey;
    if (control && event.key.toLowerCase() === "c" && (event.shiftKey || this.terminal.hasSelection())) {
      if (event.type === "keydown") {
        void copyText(this.terminal.getSelection()).then(() => this.focus());
        this.terminal.clearSelection();
        event.preventDefault();
      }
      return false;
    }
    // Paste, the palette and the search of this panel are not for the prompt; nor is leaving it
    // with Escape.
    if ((control && ["v", "k", "f"].includes(event.key.toLowerCase())) || event.key === "Escape") {
      return false;
    }
    // Shift-Tab leaves the terminal, so that the keyboard is not trapped in it.
    return !(event.key === "Tab" && event.shiftKey);
  }

  #typed(data: string): void {
    switch (this.#mode.kind) {
      case "prompt":
        return this.#edited(this.#editor.feed(data));
      case "question":
        return this.#answering(this.#mode, data);
      case "watching":
      case "busy":
        return data === "\u0003" ? this.#interrupt(this.#mode) : this.#keep(data);
    }
  }

  /** Ctrl-C means what runs, and takes back what was typed for later. */
  #interrupt(mode: Extract<Mode, { kind: "watching" | "busy" }>): void {
    this.#ahead = [];
    if (mode.kind === "busy") this.#abandon(mode.id);
    else void this.#look(mode.block);
  }

  /** What is typed or pasted before the prompt is back belongs to it. */
  #keep(input: string | string[]): void {
    if (this.#ahead.length < MAX_AHEAD) this.#ahead.push(input);
  }

  #typedAhead(): void {
    const waiting = this.#ahead;
    this.#ahead = [];
    for (let input = waiting.shift(); input !== undefined; input = waiting.shift()) {
      if (typeof input === "string") this.#typed(input);
      else this.#paste(input);
      // A question is answered by who has read it; what was typed before it may have been meant for
      // it, and is not a command.
      if (this.#mode.kind === "question") return;
    }
  }

  #edited(act: Act | null): void {
    switch (act?.type) {
      case "changed":
        return this.#redraw();
      case "complete":
        return this.#complete();
      case "clear":
        return this.clear();
      case "interrupt":
        this.#toEnd();
        this.#queue = [];
        this.terminal.write(paint.dim("^C"));
        this.#line("");
        this.#editor.reset();
        return this.#prompt();
      case "submit":
        return this.#submit(act.line);
    }
  }

  #pasted(event: ClipboardEvent): void {
    event.preventDefault();
    event.stopPropagation();
    const text = event.clipboardData?.getData("text") ?? "";
    if (this.#mode.kind === "question") {
      return this.#answering(this.#mode, text.trimStart());
    }
    // Plain from the first moment: what is shown and asked about is what runs and what is
    // remembered.
    const lines = text
      .split(/\r\n|\r|\n/)
      .map(plainLine)
      .filter((line) => line.trim() !== "");
    if (lines.length > 0) {
      this.#paste(lines);
    }
  }

  #paste(lines: string[]): void {
    if (this.#mode.kind !== "prompt") {
      return this.#keep(lines);
    }
    if (lines.length === 1) {
      return this.#edited(this.#editor.insert(lines[0] ?? ""));
    }
    void this.#askPaste(lines);
  }

  async #askPaste(lines: string[]): Promise<void> {
    const typed = this.#editor.line;
    this.#toEnd();
    this.#line("");
    for (const line of lines.slice(0, PASTE_SHOWN)) {
      this.#line(`${paint.dim("  ")}${plainText(line)}`);
    }
    if (lines.length > PASTE_SHOWN) {
      this.#line(paint.dim(`  … and ${lines.length - PASTE_SHOWN} more`));
    }
    const yes = await this.#question(`Run these ${lines.length} lines one after another?`);
    this.#editor.reset(yes ? "" : typed);
    this.#queue = yes ? lines : [];
    this.#next();
  }

  // ── Commands
  // ────────────────────

  #submit(line: string): void {
    this.#toEnd(line);
    this.#line("");
    if (line.trim() === "") {
      return this.#next();
    }
    const turn: Turn = { over: false };
    this.#turn = turn;
    const id = commands.open(this.#listener(turn));
    if (!live.send({ type: "command", id, line })) {
      commands.close(id);
      this.#say(paint.yellow("Not connected: the line waits below until the link is back."));
      this.#queue = [];
      this.#editor.reset(line);
      return this.#prompt();
    }
    this.#mode = { kind: "busy", id };
  }

  #listener(turn: Turn): Listener {
    let blocks = Promise.resolve();
    const id = (): number => (this.#mode.kind === "busy" ? this.#mode.id : 0);
    const over = (): void => void blocks.then(() => this.#finished(turn));
    return {
      text: (text) => this.terminal.write(fitted(plainText(text), this.terminal.cols)),
      ask: (question) => void this.#asked(id(), question),
      started: (runs, group) => (blocks = this.#watch(runs, group)),
      perform: (action) => this.#perform(action),
      done: over,
      lost: () => {
        if (this.#mode.kind !== "watching") {
          if (this.#mode.kind === "question") this.#line("");
          this.#say(
            paint.yellow("The link was lost before the controller answered; look at runs before you repeat it."),
          );
          this.#queue = [];
        }
        // A watched run goes on where it stopped when the link is back.
        over();
      },
    };
  }

  async #asked(id: number, question: string): Promise<void> {
    const yes = await this.#question(question);
    this.#mode = { kind: "busy", id };
    live.send({ type: "confirm", id, yes: yes === true });
  }

  #perform(action: Action): void {
    if (action.type === "clear") {
      this.terminal.clear();
    } else {
      this.#say(chooseTheme(action.name));
    }
  }

  #finished(turn: Turn): void {
    if (turn.over) {
      return;
    }
    turn.over = true;
    this.#line("");
    this.#next();
  }

  #next(): void {
    const line = this.#queue.shift();
    this.#mode = { kind: "prompt" };
    this.#prompt();
    if (line !== undefined) {
      this.#editor.reset(line);
      this.#redraw();
      this.#edited(this.#editor.submit());
    }
  }

  #abandon(id: number): void {
    commands.close(id);
    this.#queue = [];
    this.#line(paint.dim("^C"));
    this.#finished(this.#turn);
  }

  // ── Runs
  // ────────────────────

  async #watch(runs: RunId[], group: RunId | null): Promise<void> {
    const paper: Paper = {
      write: (text) => this.#write(text),
      pending: () => this.#pending,
      columns: () => this.terminal.cols,
    };
    const only = runs[0];
    if (only === undefined) {
      return;
    }
    this.#guests.own(runs, group);
    const block =
      group === null && runs.length === 1 ? new RunBlock(only, paper) : new GroupBlock(group ?? only, runs, paper);
    this.#mode = { kind: "watching", block };
    await block.finished;
    if (this.#mode.kind === "watching") {
      this.#mode = { kind: "busy", id: 0 };
    }
  }

  /** Ctrl-C: looks away from the run, and asks whether it should end too. */
  async #look(block: Block): Promise<void> {
    this.#queue = [];
    const turn = this.#turn;
    // The turn is this function's now: the block that is left may not end it.
    turn.over = true;
    const asked = this.#question("Looking away; it goes on. Cancel it too?", () => block.leave());
    const yes = await asked;
    if (yes !== false) {
      await this.#cancel(block.target);
    }
    turn.over = false;
    this.#finished(turn);
  }

  async #cancel(run: RunId): Promise<void> {
    try {
      await api.cancel(run);
      this.#line(`${paint.green("✔")} cancelling`);
    } catch (error) {
      this.#say(`${paint.red("✖")} ${plainText(sentence(error))}`);
    }
  }

  // ── Questions
  // ────────────────────

  /** Asks yes or no; null is Ctrl-C. What was typed ahead was meant for something else. */
  #question(question: string, before?: () => void): Promise<boolean | null> {
    this.#ahead = [];
    return new Promise((resolve) => {
      this.#mode = { kind: "question", typed: new Answer(), answer: resolve };
      before?.();
      this.terminal.write(
        wrapped(`${paint.yellow("?")} ${plainText(question)} ${paint.dim("[y/N]")} `, this.terminal.cols),
      );
    });
  }

  #answering({ typed, answer }: Extract<Mode, { kind: "question" }>, data: string): void {
    const { echo, yes } = typed.feed(data);
    this.terminal.write(echo);
    if (yes !== undefined) {
      this.#line(yes === null ? paint.dim("^C") : "");
      // Whatever asked goes on from here.
      this.#mode = { kind: "busy", id: 0 };
      answer(yes);
    }
  }

  // ── Completion
  // ────────────────────

  #complete(): void {
    const { line, cursor } = this.#editor;
    const id = commands.openCompletion((answer) => {
      // An answer to a line that has gone on is of no use.
      if (this.#mode.kind === "prompt" && this.#editor.line === line && this.#editor.cursor === cursor) {
        this.#completed(answer);
      }
    });
    live.send({ type: "complete", id, line, cursor });
  }

  #completed({ start, candidates }: Completions): void {
    const [only] = candidates;
    if (only && candidates.length === 1) {
      this.#editor.replace(start, only.value.endsWith("=") ? only.value : `${only.value} `);
      return this.#redraw();
    }
    const typed = this.#editor.line.slice(start, this.#editor.cursor);
    const common = commonStart(candidates.map((candidate) => candidate.value));
    if (common.length > typed.length) {
      this.#editor.replace(start, common);
      return this.#redraw();
    }
    if (candidates.length > 1) {
      this.#list(candidates);
    }
  }

  /** Shows the candidates below the line, and the line again below them. */
  #list(candidates: Completions["candidates"]): void {
    this.#toEnd();
    this.#line("");
    const shown = candidates.slice(0, CANDIDATES_SHOWN);
    const widest = Math.min(34, Math.max(...shown.map((each) => columns(each.value)))) + 2;
    for (const { value, hint } of shown) {
      this.#line(`  ${paint.cyan(padded(plainText(value), widest))}${paint.dim(plainText(hint))}`);
    }
    const more = candidates.length - shown.length;
    if (more > 0) {
      this.#line(paint.dim(`  … and ${candidates.length < CANDIDATES_SENT ? "" : "at least "}${more} more`));
    }
    this.#row = 0;
    this.#redraw();
  }

  // ── Drawing
  // ────────────────────

  #write(text: string): void {
    this.#pending += text.length;
    this.terminal.write(text, () => (this.#pending -= text.length));
  }

  #line(text: string): void {
    this.terminal.write(`${text}\r\n`);
  }

  /** Writes a sentence, which goes on at a word. */
  #say(text: string): void {
    this.#line(wrapped(text, this.terminal.cols));
  }

  /**
   * Writes whole lines above the prompt and what is typed there; without a prompt they wait for it.
   */
  #writeAbove(text: string): void {
    if (this.#mode.kind !== "prompt") {
      this.#above = (this.#above + text).slice(-MAX_ABOVE);
      return;
    }
    const up = this.#row > 0 ? `\u001b[${this.#row}A` : "";
    this.#write(`${up}\r\u001b[J${text}`);
    this.#row = 0;
    this.#redraw();
  }

  #prompt(): void {
    this.#mode = { kind: "prompt" };
    this.#row = 0;
    this.#write(this.#above);
    this.#above = "";
    if (this.#ahead.length > 0 && this.#queue.length === 0) queueMicrotask(() => this.#typedAhead());
    this.#redraw();
  }

  /** Writes prompt and line over what stands there, and puts the cursor in its place. */
  #redraw(): void {
    const { line, cursor } = this.#editor;
    const end = this.#placeOf(line);
    const at = this.#placeOf(line.slice(0, cursor));
    const up = this.#row > 0 ? `\u001b[${this.#row}A` : "";
    // A line that ends at the edge leaves the cursor there: a space and a return put it onto the
    // next row.
    const wrap = end.column === 0 && end.row > 0 ? " \r" : "";
    const back = end.row - at.row;
    const place = `${back > 0 ? `\u001b[${back}A` : ""}\r${at.column > 0 ? `\u001b[${at.column}C` : ""}`;
    this.terminal.write(`${up}\r\u001b[J${PROMPT}${line === "" ? "" : paint.bright(line)}${wrap}${place}`);
    this.#row = at.row;
  }

  /** Where a beginning of the line ends; at the edge that is the next row. */
  #placeOf(line: string): { row: number; column: number } {
    const width = this.terminal.cols;
    const { row, column } = after(line, PROMPT_COLUMNS, width);
    return column >= width ? { row: row + 1, column: 0 } : { row, column };
  }

  /** Moves below the line that is being typed. */
  #toEnd(line = this.#editor.line): void {
    const { row, column } = this.#placeOf(line);
    const down = row - this.#row;
    if (down > 0) {
      this.terminal.write(`\u001b[${down}B`);
    }
    this.terminal.write("\r");
    if (column > 0) {
      this.terminal.write(`\u001b[${column}C`);
    }
    this.#row = 0;
  }

  /** The rows of the line that is typed were left as they are: it is drawn anew over them. */
  #resized(): void {
    if (this.#mode.kind === "prompt") {
      this.#redraw();
    }
  }
}

function commonStart(values: string[]): string {
  const [first = "", ...rest] = values;
  let length = first.length;
  for (const value of rest) {
    while (length > 0 && !value.startsWith(first.slice(0, length))) {
      length -= 1;
    }
  }
  return first.slice(0, length);
}
