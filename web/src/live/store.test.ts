import { describe, expect, test } from "vitest";
import type { Change } from "../protocol/types";
import { event, machine, NOW, run, sample, snapshot } from "./fixtures";
import { activeRun, apply, clean, EVENTS_KEPT, emptyState, gather, type State } from "./store";

const LATER = "2026-11-22T12:00:10.000Z";

function change(state: State, ...changes: Change[]) {
  const dirty = clean();
  apply(state, { type: "changes", now: LATER, changes }, dirty);
  return dirty;
}

function filled(...machines: string[]): State {
  const state = emptyState();
  apply(state, snapshot({ machines: machines.map((id) => machine(id)) }), clean());
  return state;
}

describe("a snapshot", () => {
  test("replaces everything and keeps what is held of machines that stay", () => {
    const state = filled("pi-1", "pi-2");
    const held = state.machines.get("pi-1");
    const dirty = clean();
    apply(state, snapshot({ machines: [machine("pi-1", { label: "One" }), machine("pi-3")] }), dirty);
    expect(state.machines.get("pi-1")).toBe(held);
    expect(held?.machine.label).toBe("One");
    expect([...state.machines.keys()]).toEqual(["pi-1", "pi-3"]);
    expect(dirty.machines).toEqual(new Set(["pi-1", "pi-2", "pi-3"]));
  });

  test("of a large fleet has machines that came before it", () => {
    const state = filled("pi-1");
    gather(state, { type: "machines", machines: [machine("pi-2"), machine("pi-3")] });
    expect([...state.machines.keys()]).toEqual(["pi-1"]);
    for (const expected of [["pi-2", "pi-3", "pi-4"], ["pi-4"]]) {
      apply(state, snapshot({ machines: [machine("pi-4")] }), clean());
      expect([...state.machines.keys()]).toEqual(expected);
    }
  });

  test("puts runs into the order of their lives, and knows the open ones", () => {
    const state = emptyState();
    apply(state, snapshot({ runs: [run("b", { state: "running" }), run("a", { state: "succeeded" })] }), clean());
    expect([...state.runs.keys()]).toEqual(["a", "b"]);
    expect(activeRun(state, "pi-1")?.id).toBe("b");
  });
});

describe("a change", () => {
  test("of a sample touches its machine only, sets it online and moves its age", () => {
    const state = filled("pi-1", "pi-2");
    const dirty = change(state, { kind: "stats", pi: "pi-1", stats: sample({ seq: 2, cpu_percent: 80 }) });
    expect(dirty.machines).toEqual(new Set(["pi-1"]));
    expect(dirty.membership).toBe(false);
    expect(state.machines.get("pi-1")).toMatchObject({
      status: "online",
      seenAt: Date.parse(LATER),
      sample: { cpu_percent: 80 },
    });
    expect(state.machines.get("pi-1")?.recent.values().slice(-2)).toEqual([12, 80]);
  });

  test("of a sample wakes a stale machine", () => {
    const state = emptyState();
    apply(state, snapshot({ machines: [machine("pi-1", { status: "stale" })] }), clean());
    expect(change(state, { kind: "stats", pi: "pi-1", stats: sample() }).membership).toBe(true);
    expect(state.machines.get("pi-1")?.status).toBe("online");
  });

  test("of a sample of an unknown machine is dropped", () => {
    const state = filled("pi-1");
    expect(change(state, { kind: "stats", pi: "pi-9", stats: sample() }).machines.size).toBe(0);
  });

  test("of a machine keeps sample and recent values when it carries none", () => {
    const state = filled("pi-1");
    change(state, {
      kind: "machine",
      machine: machine("pi-1", {
        label: "Attic",
        status: "offline",
        last_seen: NOW,
        stats: null,
        recent_cpu_percent: [],
      }),
    });
    const held = state.machines.get("pi-1");
    expect(held).toMatchObject({ status: "offline", machine: { label: "Attic" }, sample: { cpu_percent: 12 } });
    expect(held?.recent.values().slice(-3)).toEqual([10, 11, 12]);
  });

  test("that forgets a machine removes it", () => {
    const state = filled("pi-1");
    expect(change(state, { kind: "forgotten", pi: "pi-1" })).toMatchObject({ membership: true });
    expect(state.machines.size).toBe(0);
  });

  test("never brings a final run back to life", () => {
    const state = filled("pi-1");
    change(
      state,
      { kind: "run", run: run("a", { state: "succeeded" }) },
      { kind: "run", run: run("a", { state: "running" }) },
    );
    expect(state.runs.get("a")?.state).toBe("succeeded");
    expect(activeRun(state, "pi-1")).toBeUndefined();
  });

  test("of an event that is known already changes nothing", () => {
    const state = emptyState();
    apply(state, snapshot({ events: [event(2), event(1)] }), clean());
    change(state, { kind: "event", event: event(2) }, { kind: "event", event: event(3) });
    expect(state.events.map((each) => each.seq)).toEqual([3, 2, 1]);
  });

  test("of events beyond the bound drops the oldest", () => {
    const state = filled();
    for (let seq = 1; seq <= EVENTS_KEPT + 10; seq += 1) change(state, { kind: "event", event: event(seq) });
    expect(state.events).toHaveLength(EVENTS_KEPT);
    expect(state.events[0]?.seq).toBe(EVENTS_KEPT + 10);
  });
});
