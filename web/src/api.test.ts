import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { api, Refusal } from "./api";

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("document", { baseURI: "http://pi.lan/" });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** A network that swallows everything: it ends only what is given up. */
const silent = (_url: string, init: RequestInit) => new Promise((_resolve, reject) => init.signal?.addEventListener("abort", () => reject(new Error("aborted"))));

test.each([
  ["a question whether somebody is there", () => api.me(), 5_000],
  ["any other question", () => api.accounts(), 20_000],
])("%s is given up when nobody answers", async (_name, ask, limit) => {
  vi.stubGlobal("fetch", silent);
  const outcome = vi.fn();
  const asked = ask().catch(outcome);
  await vi.advanceTimersByTimeAsync(limit - 1);
  expect(outcome).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(1);
  await asked;
  expect(outcome).toHaveBeenCalledWith(new Refusal(0, "The controller does not answer. Is it running, and is this machine on its network?"));
});

test("an answer without a body is one", async () => {
  vi.stubGlobal("fetch", async () => new Response(null, { status: 202 }));
  await expect(api.cancel("r")).resolves.toBeUndefined();
  expect(vi.getTimerCount()).toBe(0);
});
