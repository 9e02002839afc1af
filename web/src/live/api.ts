// The HTTP API, typed. An error is a `Refusal` with the sentence that the controller gave.

import type {
  AcceptedRuns,
  Account,
  Enrolment,
  EnrolmentToken,
  Event,
  FleetHistory,
  Installation,
  JoinTokenInfo,
  JoinTokenView,
  Login,
  MachineHistory,
  Me,
  NewAccount,
  NewJoinToken,
  NewRun,
  NewToken,
  PatchMachine,
  PiId,
  Problem,
  Run,
  RunId,
  SessionView,
  SignedIn,
} from "../protocol/types";
import { SESSION_KEY_HEADER, session } from "./session";

export class Refusal extends Error {
  readonly status: number;

  constructor(status: number, detail: string) {
    super(detail);
    this.status = status;
  }
}

/**
 * How long an answer may take, in milliseconds: bad credentials are answered after ten seconds at
 * the latest.
 */
const ANSWERED_WITHIN = 20_000;

/** The same for a request that only checks the session. */
const SOON = 5_000;

/**
 * How long the whole output of a run may take, in milliseconds: it may be large, and the link slow.
 */
const OUTPUT_WITHIN = 600_000;

const LOGIN = "api/login";

const NO_ANSWER = "The controller does not answer. Is it running, and is this machine on its network?";

/** Called whenever an answer says that the session is gone. */
let expired: () => void = () => undefined;

export function onExpired(handler: () => void): void {
  expired = handler;
}

/** Number of sign-ins: a late answer may belong to an earlier session. */
let sessions = 0;

/** An address of the API, also below a path of a reverse proxy. */
function address(path: string): string {
  return new URL(path, document.baseURI).href;
}

async function call(method: string, path: string, body: unknown, signal: AbortSignal): Promise<Response> {
  const init: RequestInit = { method, credentials: "same-origin", headers: { accept: "application/json" }, signal };
  const key = session.key();
  if (key !== null) {
    init.headers = { ...init.headers, [SESSION_KEY_HEADER]: key };
  }
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { ...init.headers, "content-type": "application/json" };
  }
  const response = await fetch(address(path), init);
  if (!response.ok) {
    throw await refusal(response);
  }
  return response;
}

async function refusal(response: Response): Promise<Refusal> {
  const problem = (await response.json().catch(() => null)) as Problem | null;
  return new Refusal(
    response.status,
    problem?.detail || problem?.title || `The controller answered ${response.status}.`,
  );
}

async function json<T>(method: string, path: string, body?: unknown, limit = ANSWERED_WITHIN): Promise<T> {
  const text = await exchange(method, path, body, limit, (response) => response.text());
  return (text === "" ? undefined : JSON.parse(text)) as T;
}

/** Asks, and reads the answer, all of it within a time. */
async function exchange<T>(
  method: string,
  path: string,
  body: unknown,
  limit: number,
  read: (response: Response) => Promise<T>,
): Promise<T> {
  const session = sessions;
  const control = new AbortController();
  const late = setTimeout(() => control.abort(), limit);
  try {
    return await read(await call(method, path, body, control.signal));
  } catch (error) {
    if (!(error instanceof Refusal)) {
      throw new Refusal(0, NO_ANSWER);
    }
    if (error.status === 401 && path !== LOGIN && path !== "api/me" && session === sessions) {
      expired();
    }
    throw error;
  } finally {
    clearTimeout(late);
  }
}

const id = encodeURIComponent;

function query(values: Record<string, string | number | undefined>): string {
  const pairs = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  return pairs.length === 0 ? "" : `?${pairs.map(([name, value]) => `${name}=${id(String(value))}`).join("&")}`;
}

export interface RunFilter {
  pi?: string;
  task?: string;
  state?: string;
  group?: RunId;
  limit?: number;
  before?: RunId;
}

export const api = {
  me: () => json<Me>("GET", "api/me", undefined, SOON),
  login: async (login: Login): Promise<Me> => {
    const { session_key, ...me } = await json<SignedIn>("POST", LOGIN, login);
    session.begin(session_key);
    sessions += 1;
    return me;
  },
  /** Why the controller does not serve this page's origin; null if that is not what is wrong. */
  whyRefused: async (): Promise<string | null> => {
    // The feed is only read, so this can only be refused: for its origin, or for its method. A
    // failed WebSocket says nothing to a script.
    try {
      await json<unknown>("POST", "api/ws", undefined, SOON);
    } catch (error) {
      if (error instanceof Refusal && error.status === 403) return error.message;
    }
    return null;
  },
  /** Takes up the session that another tab of this browser began. */
  rejoin: async (): Promise<Me> => {
    const me = await api.me();
    sessions += 1;
    return me;
  },
  logout: () => json<void>("POST", "api/logout"),
  sessions: () => json<SessionView[]>("GET", "api/sessions"),
  endSession: (session: string) => json<unknown>("DELETE", `api/sessions/${id(session)}`),
  endSessions: (account: string) => json<unknown>("DELETE", `api/sessions${query({ account })}`),
  patchMachine: (pi: PiId, patch: PatchMachine) => json<unknown>("PATCH", `api/pis/${id(pi)}`, patch),
  forgetMachine: (pi: PiId) => json<unknown>("DELETE", `api/pis/${id(pi)}`),
  history: (pi: PiId, from: Date, to: Date, points: number) =>
    json<MachineHistory>(
      "GET",
      `api/pis/${id(pi)}/history${query({ from: from.toISOString(), to: to.toISOString(), points })}`,
    ),
  fleetHistory: (column: string, from: Date, to: Date, points: number) =>
    json<FleetHistory>(
      "GET",
      `api/history${query({ column, target: "@all", from: from.toISOString(), to: to.toISOString(), points })}`,
    ),
  run: (run: NewRun) => json<AcceptedRuns>("POST", "api/runs", run),
  runs: (filter: RunFilter) => json<Run[]>("GET", `api/runs${query({ ...filter })}`),
  runById: (run: RunId) => json<Run>("GET", `api/runs/${id(run)}`),
  /** A run's whole output, to be saved: a link could not carry the session's key. */
  output: (run: RunId) =>
    exchange("GET", `api/runs/${id(run)}/output`, undefined, OUTPUT_WITHIN, (response) => response.blob()),
  cancel: (run: RunId) => json<unknown>("POST", `api/runs/${id(run)}/cancel`),
  events: (limit: number, before?: number) => json<Event[]>("GET", `api/events${query({ limit, before })}`),
  accounts: () => json<Account[]>("GET", "api/accounts"),
  addAccount: (account: NewAccount) => json<NewToken>("POST", "api/accounts", account),
  removeAccount: (name: string) => json<unknown>("DELETE", `api/accounts/${id(name)}`),
  rotateAccount: (name: string) => json<NewToken>("POST", `api/accounts/${id(name)}/rotate`),
  joinToken: () => json<JoinTokenView>("GET", "api/join-token"),
  joinTokens: () => json<JoinTokenInfo[]>("GET", "api/join-tokens"),
  addJoinToken: (token: NewJoinToken) => json<NewToken>("POST", "api/join-tokens", token),
  removeJoinToken: (name: string) => json<unknown>("DELETE", `api/join-tokens/${id(name)}`),
  rotateJoinToken: () => json<JoinTokenView>("POST", "api/join-token/rotate"),
  installation: () => json<Installation>("GET", "api/installation"),
  enrolments: () => json<Enrolment[]>("GET", "api/enrolments"),
  addEnrolment: (pi: PiId) => json<EnrolmentToken>("POST", "api/enrolments", { pi }),
  resetEnrolment: (pi: PiId) => json<EnrolmentToken>("POST", `api/enrolments/${id(pi)}/reset`),
  removeEnrolment: (pi: PiId) => json<unknown>("DELETE", `api/enrolments/${id(pi)}`),
};

/** The sentence of whatever was thrown. */
export function sentence(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
