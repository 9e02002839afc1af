// The mock controller's network face: the built dashboard, the REST API and the WebSocket, as the
// real one speaks them.

import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { type WebSocket, WebSocketServer } from "ws";
import { SESSION_KEY_HEADER } from "../src/live/session";
import type {
  ClientMessage,
  MachineHistory,
  NewJoinToken,
  NewRun,
  ServerMessage,
  SessionView,
} from "../src/protocol/types";
import { MockController, type Options, Refused, type Subscriber } from "./controller";
import { history } from "./fleet";
import { TASKS } from "./tasks";
import { type Conversation, command, complete } from "./terminal";

const HERE = dirname(fileURLToPath(import.meta.url));

/** The one line that README.md gives to every server of this dashboard. */
export const CONTENT_SECURITY_POLICY =
  /^default-src .*$/m.exec(readFileSync(join(HERE, "../README.md"), "utf8"))?.[0] ?? "default-src 'none'";

/** Signs in as `admin`; good any number of times, which the real one is not. */
export const CODE = "mock-code";

/** Tokens of the three accounts. */
export const TOKENS: Record<string, string> = {
  "admin-token": "admin",
  "operator-token": "home-assistant",
  "viewer-token": "wall-display",
};

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".woff2": "font/woff2",
  ".webmanifest": "application/manifest+json",
};

export interface Mock {
  url: string;
  controller: MockController;
  /** How many snapshots were sent. */
  readonly snapshots: number;
  /** Ends every session, as removing the account would. */
  expire(): void;
  /** Cuts every link. */
  cut(): void;
  /** Cuts the next link in the middle of its snapshot; this happens then. */
  breakOff(then: () => void): void;
  /** Refuses connections until called with false. */
  refuse(refusing: boolean): void;
  stop(): Promise<void>;
}

export interface ServeOptions extends Partial<Options> {
  port?: number;
  host?: string;
}

export async function startMock(options: ServeOptions = {}): Promise<Mock> {
  const controller = new MockController({ machines: 25, interval: 5, now: Date.now, ...options });
  const face = new Face(controller);
  const server = createServer((request, response) => void face.handle(request, response));
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false });
  server.on("upgrade", (request, socket, head) => {
    const held = face.session(request);
    const account = held?.account;
    if (!request.url?.endsWith("/api/ws") || !account || face.refusing) {
      socket.end(`HTTP/1.1 ${account ? 503 : 401} Refused\r\ncontent-length: 0\r\n\r\n`);
      return;
    }
    sockets.handleUpgrade(request, socket, head, (client) => face.introduce(client, account, held?.key ?? ""));
  });
  const port = await listen(server, options.port ?? 0, options.host ?? "127.0.0.1");
  return {
    url: `http://${options.host ?? "127.0.0.1"}:${port}`,
    controller,
    get snapshots() {
      return face.snapshots;
    },
    expire: () => face.expire(),
    cut: () => face.cut(),
    breakOff: (then) => {
      face.breakOff = then;
    },
    refuse: (refusing) => {
      face.refusing = refusing;
      if (refusing) face.cut();
    },
    stop: async () => {
      controller.stop();
      face.cut();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function listen(server: Server, port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      const address = server.address();
      resolve(typeof address === "object" && address ? address.port : port);
    });
  });
}

interface Session {
  account: string;
  key: string;
  created_at: string;
}

class Face {
  readonly controller: MockController;
  readonly sessions = new Map<string, Session>();
  readonly clients = new Set<WebSocket>();
  refusing = false;
  breakOff: (() => void) | undefined;
  snapshots = 0;

  constructor(controller: MockController) {
    this.controller = controller;
  }

  /** The session of a request's cookie. */
  session(request: IncomingMessage): Session | undefined {
    const session = /(?:^|;\s*)session=([^;]+)/.exec(request.headers.cookie ?? "")?.[1];
    return this.sessions.get(session ?? "");
  }

  /** Who asks: the cookie alone is not enough. */
  account(request: IncomingMessage): string | undefined {
    const held = this.session(request);
    return held && request.headers[SESSION_KEY_HEADER] === held.key ? held.account : undefined;
  }

  /** The first message of a feed has the key of its session. */
  introduce(client: WebSocket, account: string, key: string): void {
    this.clients.add(client);
    client.on("close", () => this.clients.delete(client));
    client.once("message", (data) => {
      const message = JSON.parse(String(data)) as ClientMessage;
      if (message.type === "session" && message.key === key) return this.connected(client, account);
      send(client, { type: "expired" });
      client.close();
    });
  }

  expire(): void {
    this.sessions.clear();
    for (const client of this.clients) {
      send(client, { type: "expired" });
      client.close();
    }
  }

  cut(): void {
    for (const client of this.clients) client.terminate();
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://mock");
    try {
      if (this.refusing) {
        response.destroy();
      } else if (url.pathname.startsWith("/api/")) {
        await this.api(request, response, url);
      } else {
        await asset(request, response, url.pathname);
      }
    } catch (error) {
      const status = error instanceof Refused ? error.status : 500;
      const detail = error instanceof Error ? error.message : String(error);
      answer(response, status, { type: "about:blank", title: "Refused", status, detail }, "application/problem+json");
    }
  }

  async api(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const parts = url.pathname.split("/").slice(2).map(decodeURIComponent);
    const route = `${request.method} ${parts[0]}`;
    if (route === "POST login") {
      return this.login(await body(request), response);
    }
    const account = this.account(request);
    if (!account) {
      throw new Refused(401, "Not signed in. Use a sign-in link or a token.");
    }
    if (request.method !== "GET") {
      this.mayWrite(account, parts[0] ?? "");
    }
    const result = await this.authorised(route, parts, url, account, request);
    if (result instanceof Text) {
      response.writeHead(200, { "content-type": "text/plain; charset=utf-8" }).end(result.text);
    } else {
      answer(response, route === "POST runs" && parts.length === 1 ? 202 : 200, result ?? {});
    }
  }

  mayWrite(account: string, what: string): void {
    const role = this.controller.accounts.get(account)?.role ?? "viewer";
    if (what !== "logout" && what !== "sessions" && role === "viewer") {
      throw new Refused(403, `${account} may only look.`);
    }
  }

  login(login: Record<string, unknown>, response: ServerResponse): void {
    const account = login.code === CODE ? "admin" : TOKENS[String(login.token)];
    if (!account) {
      throw new Refused(
        401,
        login.code === undefined
          ? "This token is not known here."
          : "This sign-in link was used or is too old. Print a new one with `pistat login`.",
      );
    }
    const session = randomBytes(16).toString("hex");
    const key = randomBytes(16).toString("hex");
    this.sessions.set(session, { account, key, created_at: new Date(this.controller.options.now()).toISOString() });
    response.setHeader("set-cookie", `session=${session}; HttpOnly; SameSite=Strict; Path=/`);
    answer(response, 200, { account, role: this.controller.accounts.get(account)?.role ?? "viewer", session_key: key });
  }

  listed(account: string, request: IncomingMessage): SessionView[] {
    const admin = this.controller.accounts.get(account)?.role === "admin";
    const seen = [...this.sessions].filter(([, held]) => admin || held.account === account);
    return seen.reverse().map(([session, held]) => ({
      id: session.slice(0, 16),
      account: held.account,
      address: "192.0.2.7",
      user_agent: "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
      created_at: held.created_at,
      last_used: held.created_at,
      expires_at: new Date(Date.parse(held.created_at) + 30 * 86_400_000).toISOString(),
      current: held === this.session(request),
    }));
  }

  async authorised(
    route: string,
    parts: string[],
    url: URL,
    account: string,
    request: IncomingMessage,
  ): Promise<unknown> {
    const { controller } = this;
    const [, id = "", verb = ""] = parts;
    switch (route) {
      case "GET me":
        return { account, role: controller.accounts.get(account)?.role ?? "viewer" };
      case "POST logout":
        for (const [session, held] of this.sessions) if (held === this.session(request)) this.sessions.delete(session);
        return {};
      case "GET sessions":
        return this.listed(account, request);
      case "DELETE sessions":
        for (const [session, held] of this.sessions)
          if (id ? session.slice(0, 16) === id : held.account === url.searchParams.get("account"))
            this.sessions.delete(session);
        return {};
      case "GET tasks":
        return TASKS;
      case "GET pis":
        return verb === "history"
          ? this.history(id, url.searchParams)
          : id
            ? controller.machines.get(id)?.machine
            : [...controller.machines.values()].map((each) => each.machine);
      case "GET history":
        return this.fleetHistory(url.searchParams);
      case "PATCH pis":
        return this.patch(id, await body(request), account);
      case "DELETE pis":
        controller.machines.delete(id);
        controller.push({ kind: "forgotten", pi: id });
        return {};
      case "POST runs":
        if (verb === "cancel") return controller.cancel(id);
        return controller.request({ args: {}, confirmed: false, ...(await body(request)) } as NewRun, account);
      case "GET runs":
        return this.runs(id, verb, url);
      case "GET events":
        return controller.events
          .filter((event) => event.seq < Number(url.searchParams.get("before") ?? Infinity))
          .slice(0, this.limit(url));
      default:
        return this.admin(route, id, verb, account, request);
    }
  }

  async admin(route: string, id: string, verb: string, account: string, request: IncomingMessage): Promise<unknown> {
    const { controller } = this;
    if (controller.accounts.get(account)?.role !== "admin") {
      throw new Refused(403, "Only an admin may do that.");
    }
    switch (route) {
      case "GET accounts":
        return [...controller.accounts.values()];
      case "POST accounts": {
        if (verb === "rotate") return { name: id, token: randomBytes(32).toString("base64url") };
        const { name, role } = (await body(request)) as { name: string; role: "viewer" };
        if (controller.accounts.has(name)) throw new Refused(409, `There is already an account ${name}.`);
        return { name, token: controller.addAccount(name, role) };
      }
      case "DELETE accounts":
        controller.accounts.delete(id);
        return {};
      case "GET join-token":
        return { token: controller.joinToken };
      case "POST join-token":
        controller.joinToken = `${randomBytes(12).toString("base64url")}.c0ffee5ca1ab1e`;
        return { token: controller.joinToken };
      case "GET join-tokens":
        return [...controller.joinTokens.values()];
      case "POST join-tokens": {
        const { name, uses, tags } = (await body(request)) as unknown as NewJoinToken;
        if (controller.joinTokens.has(name)) throw new Refused(409, `There is already a join token named ${name}.`);
        const expires_at = controller.iso(86_400_000);
        controller.joinTokens.set(name, {
          name,
          created_at: controller.iso(),
          expires_at,
          uses_left: uses ?? null,
          used: 0,
          last_used: null,
          tags,
        });
        return { name, token: `${randomBytes(32).toString("base64url")}.c0ffee5ca1ab1e` };
      }
      case "DELETE join-tokens":
        controller.joinTokens.delete(id);
        return {};
      case "GET installation":
        return controller.installation();
      case "GET enrolments":
        return [...controller.enrolments.values()];
      case "POST enrolments": {
        const pi = verb === "reset" ? id : String((await body(request)).pi);
        const known = controller.enrolments.get(pi);
        controller.enrolments.set(pi, {
          pi,
          serial: known?.serial ?? null,
          enrolled_at: known?.enrolled_at ?? null,
          open: true,
        });
        return { name: pi, token: randomBytes(32).toString("base64url"), controller_url: controller.url };
      }
      case "DELETE enrolments":
        controller.enrolments.delete(id);
        return {};
      default:
        throw new Refused(404, "There is nothing at this address.");
    }
  }

  fleetHistory(asked: URLSearchParams): unknown {
    const column = asked.get("column") ?? "";
    const answers = [...this.controller.machines.keys()].map((id) => [id, this.history(id, asked)] as const);
    const [first] = answers;
    return {
      start: first?.[1].start,
      step_seconds: first?.[1].step_seconds,
      machines: Object.fromEntries(answers.map(([id, { columns }]) => [id, columns[column]])),
    };
  }

  history(id: string, asked: URLSearchParams): MachineHistory {
    const machine = this.controller.machines.get(id);
    if (!machine) throw new Refused(404, `There is no machine ${id}.`);
    const [from = 0, to = 0] = ["from", "to"].map((name) => Date.parse(asked.get(name) ?? "") / 1_000);
    return history(machine, from, to, Number(asked.get("points")), this.controller.options.now() / 1_000);
  }

  runs(id: string, verb: string, url: URL): unknown {
    const { controller } = this;
    if (verb === "output")
      return new Text((controller.outputs.get(id)?.pieces ?? []).map((piece) => piece.data).join(""));
    if (id) {
      const run = controller.runs.get(id);
      if (!run) throw new Refused(404, `There is no run ${id}.`);
      return run;
    }
    const wanted = (name: string) => url.searchParams.get(name);
    return controller
      .newest(controller.runs, 10_000)
      .filter(
        (run) =>
          (!wanted("pi") || run.pi === wanted("pi")) &&
          (!wanted("task") || run.task === wanted("task")) &&
          (!wanted("state") || run.state === wanted("state")),
      )
      .filter((run) => !wanted("group") || run.group === wanted("group"))
      .filter((run) => !wanted("before") || run.id < (wanted("before") ?? ""))
      .slice(0, this.limit(url));
  }

  limit(url: URL): number {
    return Math.min(Number(url.searchParams.get("limit") ?? 100), this.controller.longestPage);
  }

  patch(id: string, patch: Record<string, unknown>, account: string): unknown {
    const simulated = this.controller.machines.get(id);
    if (!simulated) throw new Refused(404, `There is no machine ${id}.`);
    const { machine } = simulated;
    if ("label" in patch) {
      machine.label = String(patch.label || machine.info?.label || id);
      this.controller.event("label", "info", `renamed to ${machine.label}`, { pi: id, account });
    }
    if ("assignment" in patch) machine.assignment = patch.assignment ? String(patch.assignment) : null;
    if ("tags" in patch) machine.tags = patch.tags as string[];
    if ("interval" in patch) machine.interval_seconds = patch.interval as number | null;
    this.controller.machineChanged(id);
    return machine;
  }

  connected(client: WebSocket, account: string): void {
    const { controller } = this;
    const subscriber: Subscriber = { send: (message) => send(client, message), followed: new Set() };
    const questions = new Map<number, (yes: boolean) => void>();
    const talk: Conversation = {
      account,
      send: (message) => send(client, message),
      ask: (id, question) =>
        new Promise((resolve) => {
          questions.set(id, resolve);
          send(client, { type: "ask", id, question });
        }),
    };
    this.snapshots += 1;
    const messages = controller.snapshot(account);
    if (this.breakOff) {
      for (const message of messages.slice(0, -1)) send(client, message);
      client.close();
      this.breakOff();
      this.breakOff = undefined;
      return;
    }
    for (const message of messages) send(client, message);
    controller.subscribers.add(subscriber);
    client.on("message", (data) => {
      const message = JSON.parse(String(data)) as ClientMessage;
      if (message.type === "confirm") questions.get(message.id)?.(message.yes);
      else this.received(message, subscriber, talk);
    });
    client.on("close", () => {
      controller.subscribers.delete(subscriber);
    });
  }

  received(message: ClientMessage, subscriber: Subscriber, talk: Conversation): void {
    const { controller } = this;
    switch (message.type) {
      case "ping":
        return talk.send({ type: "pong", id: message.id });
      case "watch":
        controller.watched.clear();
        for (const pi of message.pis) controller.watched.add(pi);
        return;
      case "visible":
        subscriber.hidden = !message.visible;
        if (message.visible) {
          this.snapshots += 1;
          for (const message of controller.snapshot(talk.account)) talk.send(message);
        }
        return;
      case "follow":
        return controller.follow(message.run, message.from, subscriber);
      case "unfollow":
        return controller.unfollow(message.run, subscriber);
      case "command":
        return void command(controller, talk, message.id, message.line);
      case "complete":
        return talk.send({
          type: "completions",
          id: message.id,
          ...complete(controller, message.line, message.cursor),
        });
      case "confirm":
      case "session":
        return;
    }
  }
}

class Text {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

const serialised = new WeakMap<object, string>();

/** One serialisation serves every client, as in the real controller. */
function send(client: WebSocket, message: ServerMessage): void {
  let text = serialised.get(message);
  if (text === undefined) {
    text = JSON.stringify(message);
    serialised.set(message, text);
  }
  if (client.readyState === 1) client.send(text);
}

function answer(response: ServerResponse, status: number, value: unknown, type = "application/json"): void {
  response.writeHead(status, { "content-type": type }).end(JSON.stringify(value));
}

async function body(request: IncomingMessage): Promise<Record<string, unknown>> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return chunks.length === 0 ? {} : (JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>);
}

async function asset(request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
  const name = path === "/" ? "index.html" : normalize(path).replace(/^(\.\.[/\\])+/, "");
  const file = join(HERE, "../dist", name);
  const headers: Record<string, string> = {
    "content-type": TYPES[extname(file)] ?? "application/octet-stream",
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": path.startsWith("/assets/") ? "public, max-age=31536000, immutable" : "no-cache",
  };
  for (const [coding, ending] of [
    ["br", ".br"],
    ["gzip", ".gz"],
    ["", ""],
  ] as const) {
    if (coding && !String(request.headers["accept-encoding"] ?? "").includes(coding)) continue;
    const content = await readFile(file + ending).catch(() => null);
    if (content) {
      response
        .writeHead(200, coding ? { ...headers, "content-encoding": coding, vary: "accept-encoding" } : headers)
        .end(content);
      return;
    }
  }
  response.writeHead(404).end("There is nothing at this address.");
}
