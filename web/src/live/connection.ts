// The dashboard's WebSocket: connects for ever, with jittered backoff, and notices a link that is
// dead without saying so.
//
// It knows nothing of the messages' meaning beyond `pong` and `expired`; its owner gets every other
// message in order.

import type { ClientMessage, ServerMessage } from "../protocol/types";

/** The first wait after a lost link, in milliseconds; each failure doubles it. */
const FIRST_WAIT = 400;

/** The longest wait, in milliseconds. */
const LONGEST_WAIT = 10_000;

/** How often the round trip is measured, in milliseconds. */
const PING_EVERY = 5_000;

/** When it is measured first, in milliseconds after the link was opened. */
const FIRST_PING = 800;

/** A link on which nothing came for so long is taken for dead, in milliseconds. */
const SILENCE = 15_000;

/**
 * A socket that is not open after so long is given up, in milliseconds: a network that swallows
 * everything says nothing for minutes.
 */
const OPEN_WITHIN = 5_000;

export type Link = "connecting" | "open" | "down";

export interface Handlers {
  message(message: ServerMessage): void;
  /** `wait` is the time until the next try in milliseconds, when the link is down. */
  link(link: Link, wait: number): void;
  roundTrip(milliseconds: number): void;
  /** The session is gone: nothing is tried again until `start`. */
  expired(): void;
}

export interface Environment {
  open(): WebSocket;
  /** What is said first on every link: who this is. */
  introduction(): ClientMessage | null;
  /** Whether the session still holds; a network failure counts as yes. */
  signedIn(): Promise<boolean>;
  clock(): number;
  random(): number;
}

export class Connection {
  readonly #environment: Environment;
  readonly #handlers: Handlers;
  #socket: WebSocket | null = null;
  #failures = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #pings: ReturnType<typeof setInterval> | undefined;
  #first: ReturnType<typeof setTimeout> | undefined;
  #opening: ReturnType<typeof setTimeout> | undefined;
  #pinged = new Map<number, number>();
  #lastPing = 0;
  #lastMessageAt = 0;
  #stopped = true;

  constructor(environment: Environment, handlers: Handlers) {
    this.#environment = environment;
    this.#handlers = handlers;
  }

  /** Connects, and stays connected until `stop` or an expired session. */
  start(): void {
    if (this.#stopped) {
      this.#stopped = false;
      this.#failures = 0;
      this.#connect();
    }
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#retry);
    this.#drop();
  }

  /**
   * Tries at once, for example because the network came back; a try that was begun before may be
   * lost in the old one.
   */
  hurry(): void {
    if (!this.#stopped && this.#socket?.readyState !== 1) {
      clearTimeout(this.#retry);
      this.#drop();
      this.#connect();
    }
  }

  /** Sends a message; false when there is no link, and then nothing is kept for later. */
  send(message: ClientMessage): boolean {
    if (this.#socket?.readyState !== 1) {
      return false;
    }
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  #connect(): void {
    this.#handlers.link("connecting", 0);
    const socket = this.#environment.open();
    this.#socket = socket;
    socket.onopen = () => this.#opened();
    socket.onmessage = (event) => this.#received(String(event.data));
    socket.onclose = () => this.#closed(socket);
    this.#opening = setTimeout(() => this.#closed(socket), OPEN_WITHIN);
  }

  #opened(): void {
    clearTimeout(this.#opening);
    this.#lastMessageAt = this.#environment.clock();
    const introduction = this.#environment.introduction();
    if (introduction) this.send(introduction);
    this.#handlers.link("open", 0);
    // The first moments are the page's own work: measured then, the round trip would tell of that.
    this.#first = setTimeout(() => this.#ping(), FIRST_PING);
    this.#pings = setInterval(() => this.#watch(), PING_EVERY);
  }

  #received(text: string): void {
    this.#lastMessageAt = this.#environment.clock();
    const message = JSON.parse(text) as ServerMessage;
    if (message.type === "pong") {
      this.#ponged(message.id);
    } else if (message.type === "expired") {
      this.#expire();
    } else {
      // A link counts as good when it has delivered something, not when it was opened.
      this.#failures = 0;
      this.#handlers.message(message);
    }
  }

  #watch(): void {
    if (this.#environment.clock() - this.#lastMessageAt > SILENCE) {
      this.#closed(this.#socket);
    } else {
      this.#ping();
    }
  }

  #ping(): void {
    this.#lastPing += 1;
    this.#pinged.clear();
    this.#pinged.set(this.#lastPing, this.#environment.clock());
    this.send({ type: "ping", id: this.#lastPing });
  }

  #ponged(id: number): void {
    const sent = this.#pinged.get(id);
    if (sent !== undefined) {
      this.#pinged.delete(id);
      this.#handlers.roundTrip(this.#environment.clock() - sent);
    }
  }

  #closed(socket: WebSocket | null): void {
    if (this.#socket !== null && this.#socket !== socket) {
      return;
    }
    this.#drop();
    if (!this.#stopped) {
      this.#later();
    }
  }

  #later(): void {
    this.#failures += 1;
    const longest = Math.min(FIRST_WAIT * 2 ** (this.#failures - 1), LONGEST_WAIT);
    const wait = longest * (0.5 + this.#environment.random() / 2);
    this.#handlers.link("down", wait);
    this.#retry = setTimeout(() => void this.#again(), wait);
  }

  async #again(): Promise<void> {
    // A refused upgrade tells a script nothing, so the session is asked about.
    const signedIn = await this.#environment.signedIn();
    if (this.#stopped || this.#socket !== null) {
      return;
    }
    if (signedIn) {
      this.#connect();
    } else {
      this.#expire();
    }
  }

  #expire(): void {
    this.stop();
    this.#handlers.link("down", 0);
    this.#handlers.expired();
  }

  #drop(): void {
    clearInterval(this.#pings);
    clearTimeout(this.#first);
    clearTimeout(this.#opening);
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }
}
