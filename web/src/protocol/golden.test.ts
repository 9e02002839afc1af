// Golden wire messages, shared with the Rust side: the very bytes that it reads and writes are
// applied here.

import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";

import { apply, clean, emptyState } from "../live/store";
import type { ClientMessage, ServerMessage } from "./types";

const folder = new URL("../../../tests/fixtures/wire/", import.meta.url);

function golden<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(`${name}.json`, folder), "utf8")) as T;
}

/**
 * Every kind of message that the types know, with its golden file. Leaving one out does not
 * compile.
 */
const SERVER: Record<Exclude<ServerMessage["type"], "pong" | "done">, string> = {
  snapshot: "server-snapshot",
  machines: "server-machines",
  changes: "server-changes",
  output: "server-output",
  unfollowed: "server-unfollowed",
  text: "server-text",
  ask: "server-ask",
  started: "server-started",
  perform: "server-perform",
  completions: "server-completions",
  expired: "server-expired",
};

describe("golden messages", () => {
  test("each message of the controller has the type that its file is named for", () => {
    const names = readdirSync(folder).filter((name) => name.startsWith("server-"));
    expect(names.length).toBe(Object.keys(SERVER).length);
    for (const [type, name] of Object.entries(SERVER)) {
      expect(golden<ServerMessage>(name).type).toBe(type);
    }
  });

  test("a snapshot and changes give the state that they describe", () => {
    const state = emptyState();
    apply(state, golden("server-snapshot"), clean());
    expect(state.machines.get("pi-1")?.machine.label).toBe("Garage Door");
    expect(state.machines.get("pi-1")?.sample?.seq).toBe(812);
    apply(state, golden("server-changes"), clean());
    const held = state.machines.get("pi-1");
    expect(held?.machine.label).toBe("Shed");
    expect(held?.sample?.seq).toBe(813);
    expect(held?.sample?.cpu_percent).toBe(90.5);
    expect(state.runs.get("01938f00-0000-7000-8000-000000000000")?.state).toBe("succeeded");
    expect(state.active.get("pi-1")?.size ?? 0).toBe(0);
    expect(state.events[0]?.seq).toBe(42);
  });

  test("what the browser sends is what the controller reads", () => {
    const messages: ClientMessage[] = [
      { type: "command", id: 1, line: "task run uptime" },
      { type: "follow", run: "01938f00-0000-7000-8000-000000000000", from: 0 },
      { type: "watch", pis: ["pi-1"] },
      { type: "visible", visible: false },
    ];
    for (const message of messages) {
      expect(message).toEqual(golden(`client-${message.type}`));
    }
  });
});
