import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { ClientMessage, ServerMessage } from "../protocol/types";
import { Connection, type Link } from "./connection";
import { snapshot } from "./fixtures";

class FakeSocket {
  static made: FakeSocket[] = [];
  readyState = 0;
  sent: string[] = [];
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: (() => void) | null = null;

  constructor() {
    FakeSocket.made.push(this);
  }
  open(): void {
    this.readyState = 1;
    this.onopen?.();
  }
  say(message: ServerMessage): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
  send(text: string): void {
    this.sent.push(text);
  }
  close(): void {
    this.readyState = 3;
  }
  fail(): void {
    this.readyState = 3;
    this.onclose?.();
  }
}

let signedIn = true;
let introduction: ClientMessage | null = null;
let now = 0;
let links: Link[] = [];
let waits: number[] = [];
let expired = 0;
let received: string[] = [];
let trips: number[] = [];

function make(): Connection {
  return new Connection(
    {
      open: () => new FakeSocket() as unknown as WebSocket,
      introduction: () => introduction,
      signedIn: async () => signedIn,
      clock: () => now,
      random: () => 1,
    },
    {
      message: (message) => received.push(message.type),
      link: (link, wait) => {
        links.push(link);
        if (link === "down") waits.push(wait);
      },
      roundTrip: (milliseconds) => trips.push(milliseconds),
      expired: () => (expired += 1),
    },
  );
}

const newest = (): FakeSocket => FakeSocket.made[FakeSocket.made.length - 1] as FakeSocket;

beforeEach(() => {
  vi.useFakeTimers();
  FakeSocket.made = [];
  signedIn = true;
  introduction = null;
  now = expired = 0;
  links = [];
  waits = [];
  received = [];
  trips = [];
});
afterEach(() => vi.useRealTimers());

describe("a connection", () => {
  test("that fails tries again with waits that double up to ten seconds", async () => {
    make().start();
    for (let tries = 0; tries < 8; tries += 1) {
      newest().fail();
      await vi.advanceTimersByTimeAsync(waits[waits.length - 1] ?? 0);
    }
    expect(waits).toEqual([400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
    expect(FakeSocket.made).toHaveLength(9);
  });

  test("begins with short waits again only when something was delivered", async () => {
    make().start();
    newest().fail();
    await vi.advanceTimersByTimeAsync(400);
    newest().open();
    newest().fail();
    expect(waits).toEqual([400, 800]);
    await vi.advanceTimersByTimeAsync(800);
    newest().open();
    newest().say(snapshot());
    newest().fail();
    expect(waits).toEqual([400, 800, 400]);
  });

  test("whose session is gone stops and says so", async () => {
    make().start();
    signedIn = false;
    newest().fail();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(expired).toBe(1);
    expect(FakeSocket.made).toHaveLength(1);
  });

  test("that is told of an expired session stops at once", async () => {
    make().start();
    newest().open();
    newest().say({ type: "expired" });
    await vi.advanceTimersByTimeAsync(60_000);
    expect([expired, FakeSocket.made.length]).toEqual([1, 1]);
  });

  test("on which nothing comes for fifteen seconds is given up", async () => {
    make().start();
    newest().open();
    now = 16_000;
    await vi.advanceTimersByTimeAsync(5_000);
    expect(links).toEqual(["connecting", "open", "down"]);
  });

  test("that does not open within five seconds is given up and tried again", async () => {
    make().start();
    const first = newest();
    await vi.advanceTimersByTimeAsync(5_000);
    expect([links, first.readyState]).toEqual([["connecting", "down"], 3]);
    await vi.advanceTimersByTimeAsync(400);
    newest().open();
    await vi.advanceTimersByTimeAsync(6_000);
    expect([links, FakeSocket.made.length]).toEqual([["connecting", "down", "connecting", "open"], 2]);
  });

  test("that is asked to hurry tries anew instead of waiting for a try that may be lost, and leaves an open link alone", () => {
    const connection = make();
    connection.start();
    const first = newest();
    connection.hurry();
    expect([first.readyState, first.onopen, FakeSocket.made.length]).toEqual([3, null, 2]);
    newest().open();
    connection.hurry();
    expect([links, FakeSocket.made.length]).toEqual([["connecting", "connecting", "open"], 2]);
  });

  test("measures the round trip", async () => {
    make().start();
    newest().open();
    await vi.advanceTimersByTimeAsync(1_000);
    now = 7;
    newest().say({ type: "pong", id: 1 });
    expect(trips).toEqual([7]);
  });

  test("says who it is before anything else, on every link", async () => {
    introduction = { type: "session", key: "k" };
    const connection = make();
    connection.start();
    connection.send({ type: "watch", pis: [] });
    newest().open();
    connection.send({ type: "watch", pis: [] });
    newest().fail();
    await vi.advanceTimersByTimeAsync(400);
    newest().open();
    expect(FakeSocket.made.map((socket) => socket.sent.map((text) => JSON.parse(text).type))).toEqual([
      ["session", "watch"],
      ["session"],
    ]);
  });

  test("sends nothing without a link and keeps nothing for later", () => {
    const connection = make();
    connection.start();
    expect(connection.send({ type: "watch", pis: [] })).toBe(false);
    newest().open();
    expect(newest().sent).toEqual([]);
    expect(connection.send({ type: "watch", pis: [] })).toBe(true);
  });
});
