import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { api, onExpired, Refusal } from "./api";
import { session } from "./session";

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("document", { baseURI: "http://pi.lan/" });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** A network that swallows everything: it ends only what is given up. */
const silent = (_url: string, init: RequestInit) =>
  new Promise((_resolve, reject) => init.signal?.addEventListener("abort", () => reject(new Error("aborted"))));

test.each([
  ["a check of the session", () => api.me(), 5_000],
  ["any other question", () => api.accounts(), 20_000],
])("%s times out without an answer", async (_name, ask, limit) => {
  vi.stubGlobal("fetch", silent);
  const outcome = vi.fn();
  const asked = ask().catch(outcome);
  await vi.advanceTimersByTimeAsync(limit - 1);
  expect(outcome).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(1);
  await asked;
  expect(outcome).toHaveBeenCalledWith(
    new Refusal(0, "The controller does not answer. Is it running, and is this machine on its network?"),
  );
});

test("an answer without a body is one", async () => {
  vi.stubGlobal("fetch", async () => new Response(null, { status: 202 }));
  await expect(api.cancel("r")).resolves.toBeUndefined();
  expect(vi.getTimerCount()).toBe(0);
});

test("a late refusal of an earlier session does not end the one that began since", async () => {
  const expired = vi.fn();
  onExpired(expired);
  const refused = () => new Response("{}", { status: 401 });
  let answer = (_response: Response): void => undefined;
  vi.stubGlobal("fetch", (url: string) =>
    url.endsWith("/api/login")
      ? Promise.resolve(new Response('{"account":"admin","role":"admin","session_key":"k"}'))
      : new Promise<Response>((resolve) => (answer = resolve)),
  );
  const before = api.accounts().catch(() => undefined);
  await api.login({ token: "t" });
  answer(refused());
  await before;
  expect(expired).not.toHaveBeenCalled();
  const since = api.accounts().catch(() => undefined);
  answer(refused());
  await since;
  expect(expired).toHaveBeenCalledOnce();
});

test("the key of a sign-in goes with every request after it, until it is forgotten", async () => {
  const sent: Array<string | undefined> = [];
  vi.stubGlobal("fetch", async (_url: string, init: RequestInit) => {
    sent.push((init.headers as Record<string, string>)["pistat-session-key"]);
    return new Response('{"account":"admin","role":"admin","session_key":"secret"}');
  });
  session.end();
  await expect(api.login({ token: "t" })).resolves.toEqual({ account: "admin", role: "admin" });
  await api.accounts();
  await api.run({ task: "uptime", target: "pi-1", args: {}, confirmed: false });
  session.end();
  await api.accounts();
  expect(sent).toEqual([undefined, "secret", "secret", undefined]);
});

test("a page whose origin is refused learns why, and any other refusal is not taken for that", async () => {
  const answer = (status: number) =>
    vi.stubGlobal("fetch", async () => new Response(JSON.stringify({ detail: `because ${status}` }), { status }));
  answer(403);
  await expect(api.whyRefused()).resolves.toBe("because 403");
  for (const status of [200, 405, 500]) {
    answer(status);
    await expect(api.whyRefused()).resolves.toBeNull();
  }
});
