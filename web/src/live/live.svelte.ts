// The store made visible to Svelte: one signal for each machine and a few for the rest, raised once
// per animation frame.
//
// One direction: socket → apply → store → signals → views. Nothing here changes the state but the
// messages.

import { SvelteMap } from "svelte/reactivity";
import type { ClientMessage, Login, Me, PiId, ServerMessage } from "../protocol/types";
import { api, onExpired, Refusal } from "./api";
import { commands } from "./commands";
import { Connection, type Link } from "./connection";
import { type Health, health } from "./health";
import { History } from "./history";
import { Outputs } from "./outputs";
import { session } from "./session";
import { activeRun, apply, clean, emptyState, gather, type Held, type State } from "./store";

/**
 * How often what depends on all samples (counters, sorting, filters by number) may be worked out
 * anew, in milliseconds.
 */
const FLEET_EVERY = 1_000;

/**
 * How often a hidden page is brought up to date, in milliseconds: its title and icon are still
 * seen, and there are no frames.
 */
const HIDDEN_EVERY = 1_000;

/**
 * One machine, as views see it: reading a property subscribes to the machine, and to nothing else.
 */
export class Cell {
  readonly id: PiId;
  #held: Held;
  #health: Health;

  constructor(id: PiId, held: Held) {
    this.id = id;
    this.#held = $state.raw({ ...held });
    this.#health = health(held);
  }

  /** Computed once a sample, for every view that shows or counts it. */
  get health(): Health {
    void this.#held;
    return this.#health;
  }

  get held(): Held {
    return this.#held;
  }

  get run() {
    void this.#held;
    return activeRun(live.state, this.id);
  }

  changed(held: Held): void {
    this.#health = health(held);
    // Another object each time: what is derived from it would not be worked out anew for the same
    // one.
    this.#held = { ...held };
  }
}

/** A number that views read to be told of changes. */
class Signal {
  #version = $state(0);

  read(): number {
    return this.#version;
  }

  raise(): void {
    this.#version += 1;
  }
}

class Live {
  readonly state: State = emptyState();
  readonly cells = new SvelteMap<PiId, Cell>();
  readonly outputs = new Outputs((message) => this.send(message));

  /** How many machines stand how; kept as they change, never counted through. */
  readonly standing: Record<Health, number> = { ok: 0, warning: 0, offline: 0 };

  /** Machines came, went or changed in more than their sample. */
  readonly membership = new Signal();
  /** Samples are new; at most once a second. */
  readonly samples = new Signal();
  readonly runs = new Signal();
  readonly groups = new Signal();
  readonly events = new Signal();
  readonly tasks = new Signal();
  readonly pulse = new Signal();
  /** A snapshot came: whatever was fetched besides may have missed changes. */
  readonly snapshots = new Signal();

  ready = $state(false);
  /** Kept when the first snapshot is shown. */
  readonly first: Promise<void>;
  #kept: () => void = () => undefined;
  me = $state.raw<Me | null>(null);
  link = $state<Link>("connecting");
  roundTrip = $state<number | null>(null);
  /** When the link was lost, by `performance.now()`. */
  downSince = $state<number | null>(null);
  /** When the next try comes, by `performance.now()`. */
  nextTry = $state<number | null>(null);
  /** Why the controller refuses this page its feed; empty if it does not. */
  refused = $state("");
  /** The controller's version, once it is another than the page began with. */
  newVersion = $state("");
  #version = "";
  /** Null until it is known. */
  signedIn = $state<boolean | null>(null);
  /** The browser's clock at the newest frame. */
  #receivedAt = 0;
  #dirty = clean();
  /** What draws next: a frame, or a timer in a hidden page. */
  #frame = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #fleetDue = 0;
  #fleetTimer: ReturnType<typeof setTimeout> | undefined;
  #watched: PiId[] = [];

  readonly connection = new Connection(
    {
      open: () => new WebSocket(new URL("api/ws", document.baseURI).href.replace(/^http/, "ws")),
      introduction: () => {
        const key = session.key();
        return key === null ? null : { type: "session", key };
      },
      signedIn: () => this.#stillSignedIn(),
      clock: () => performance.now(),
      random: () => Math.random(),
    },
    {
      message: (message) => this.#received(message),
      link: (link, wait) => this.#linked(link, wait),
      roundTrip: (milliseconds) => (this.roundTrip = milliseconds),
      expired: () => this.#expired(),
    },
  );

  constructor() {
    this.first = new Promise((resolve) => (this.#kept = resolve));
  }

  /** The controller's clock now, in milliseconds. */
  now(): number {
    return this.state.ready ? this.state.now + (performance.now() - this.#receivedAt) : Date.now();
  }

  send(message: ClientMessage): boolean {
    return this.connection.send(message);
  }

  /** Reports which machines are being viewed. */
  watch(pis: PiId[]): void {
    this.#watched = pis;
    this.send({ type: "watch", pis });
  }

  /** Asks who is signed in, and connects if there is a session. */
  async start(): Promise<void> {
    onExpired(() => this.#expired());
    addEventListener("online", () => this.connection.hurry());
    document.addEventListener("visibilitychange", () => this.#shown());
    session.onChange((signedIn) => (signedIn ? void this.#rejoin() : this.#expired()));
    if (session.key() === null) {
      this.signedIn = false;
      return;
    }
    try {
      this.entered(await api.me());
    } catch (error) {
      this.signedIn = error instanceof Refusal && error.status === 401 ? false : null;
      if (this.signedIn === null) {
        this.connection.start();
      }
    }
  }

  /** Signs in; the other tabs learn of it by the key that they share. */
  login(login: Login): Promise<Me> {
    return api.login(login);
  }

  /** Leaves the sign-in if there is a session again. */
  async #rejoin(): Promise<void> {
    if (this.signedIn !== false || session.key() === null) return;
    const me = await api.rejoin().catch(() => null);
    if (me && this.signedIn === false) this.entered(me);
  }

  /** After a sign-in: an open link may belong to another account. */
  entered(me: Me): void {
    this.me = me;
    this.signedIn = true;
    this.connection.stop();
    this.connection.start();
  }

  /**
   * Signs out for good: the page is loaded anew, so that nothing of what it showed stays readable.
   */
  async leave(): Promise<void> {
    try {
      await api.logout();
    } catch (error) {
      // A session that has ended already is as good.
      if (!(error instanceof Refusal && error.status === 401)) throw error;
    }
    session.end();
    this.connection.stop();
    History.forget();
    location.replace(`${location.pathname}${location.search}#/`);
    location.reload();
  }

  /**
   * Whether the session holds, asked after a failed link; and why the link is refused, if it is for
   * the page's origin.
   */
  async #stillSignedIn(): Promise<boolean> {
    if (session.key() === null) return false;
    try {
      await api.me();
    } catch (error) {
      return !(error instanceof Refusal && error.status === 401);
    }
    this.refused = (await api.whyRefused()) ?? "";
    return true;
  }

  #expired(): void {
    this.connection.stop();
    this.signedIn = false;
  }

  /** The page was hidden, or is seen again. */
  #shown(): void {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#frame = 0;
    this.#timer = undefined;
    this.#schedule();
    this.send({ type: "visible", visible: !document.hidden });
    if (document.hidden) return;
    this.connection.hurry();
    void this.#rejoin();
  }

  #linked(link: Link, wait: number): void {
    if (link === "open") {
      this.nextTry = null;
      // What is there is of a snapshot that the last link did not bring to its end.
      this.state.coming = [];
    } else if (this.link === "open") {
      this.downSince = performance.now();
      this.roundTrip = null;
      commands.lost();
    }
    this.link = link;
    if (link === "down") {
      this.nextTry = wait > 0 ? performance.now() + wait : null;
    }
  }

  #received(message: ServerMessage): void {
    switch (message.type) {
      case "machines":
        return gather(this.state, message);
      case "snapshot":
        this.#fresh(message.controller.version);
        break;
      case "changes":
        break;
      case "output":
        return this.outputs.received(message);
      case "unfollowed":
        return this.outputs.unfollowed(message);
      default:
        return commands.received(message);
    }
    this.#receivedAt = performance.now();
    if (message.type === "changes") {
      // One batch may tell of a run several times.
      const fresh = new Map(
        message.changes.flatMap((change) =>
          change.kind === "run" && !this.state.runs.has(change.run.id) ? [[change.run.id, change.run] as const] : [],
        ),
      );
      for (const run of fresh.values()) commands.began(run);
    }
    // Applied at once and drawn with the next frame: until then names of what changed are gathered,
    // never messages.
    apply(this.state, message, this.#dirty);
    this.#schedule();
  }

  /** A new link: whatever the controller should know of this browser is said again. */
  #fresh(version: string): void {
    this.#version ||= version;
    this.newVersion = version === this.#version ? "" : version;
    this.downSince = null;
    this.refused = "";
    this.signedIn = true;
    this.outputs.again();
    if (this.#watched.length > 0) {
      this.send({ type: "watch", pis: this.#watched });
    }
    if (document.hidden) this.send({ type: "visible", visible: false });
  }

  #schedule(): void {
    if (this.#frame !== 0 || this.#timer !== undefined) {
      return;
    }
    const draw = (): void => {
      this.#frame = 0;
      this.#timer = undefined;
      this.#flush();
    };
    if (document.hidden) this.#timer = setTimeout(draw, HIDDEN_EVERY);
    else this.#frame = requestAnimationFrame(draw);
  }

  #flush(): void {
    const dirty = this.#dirty;
    this.#dirty = clean();
    this.#flushMachines(dirty.machines);
    if (dirty.membership) this.membership.raise();
    if (dirty.runs) this.runs.raise();
    if (dirty.groups) this.groups.raise();
    if (dirty.events) this.events.raise();
    if (dirty.tasks) this.tasks.raise();
    if (dirty.pulse) this.pulse.raise();
    if (dirty.samples) this.#raiseSamples();
    if (dirty.session) {
      this.snapshots.raise();
      this.me = this.state.me;
      this.ready = true;
      this.#kept();
    }
    if (dirty.runs || dirty.groups) commands.changed();
  }

  #flushMachines(changed: Set<PiId>): void {
    for (const id of changed) {
      const held = this.state.machines.get(id);
      const cell = this.cells.get(id);
      if (cell) this.standing[cell.health] -= 1;
      if (!held) {
        this.cells.delete(id);
        continue;
      }
      if (cell) {
        cell.changed(held);
      } else {
        this.cells.set(id, new Cell(id, held));
      }
      this.standing[(cell ?? this.cells.get(id))?.health ?? "ok"] += 1;
    }
  }

  #raiseSamples(): void {
    const now = performance.now();
    if (now >= this.#fleetDue) {
      this.#fleetDue = now + FLEET_EVERY;
      this.samples.raise();
    } else if (this.#fleetTimer === undefined) {
      this.#fleetTimer = setTimeout(() => {
        this.#fleetTimer = undefined;
        this.#raiseSamples();
      }, this.#fleetDue - now);
    }
  }
}

export const live = new Live();
