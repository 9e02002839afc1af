import { expect, test, vi } from "vitest";
import { type ClientMessage, MAX_FOLLOWED, type OutputPiece } from "../protocol/types";
import { Outputs } from "./outputs";

const piece = (seq: number): OutputPiece => ({ seq, stream: "stdout", data: `${seq}\n`, gap_bytes: 0 });

function made() {
  const sent: ClientMessage[] = [];
  const outputs = new Outputs((message) => {
    sent.push(message);
    return true;
  });
  const watcher = () => {
    const seen: number[] = [];
    const watch = {
      seen,
      ended: 0,
      pieces: (pieces: OutputPiece[]) => void seen.push(...pieces.map((each) => each.seq)),
      done: () => void (watch.ended += 1),
    };
    return watch;
  };
  return { sent, outputs, watcher };
}

test("two views share one stream, and the second begins at the beginning", () => {
  const { sent, outputs, watcher } = made();
  const [first, second] = [watcher(), watcher()];
  const leaveFirst = outputs.follow("r", first);
  outputs.received({ run: "r", pieces: [piece(0), piece(1)], done: false });
  const leaveSecond = outputs.follow("r", second);
  outputs.received({ run: "r", pieces: [piece(2)], done: false });
  expect([first.seen, second.seen]).toEqual([
    [0, 1, 2],
    [0, 1, 2],
  ]);
  leaveFirst();
  expect(sent).toEqual([{ type: "follow", run: "r", from: 0 }]);
  leaveSecond();
  expect(sent[1]).toEqual({ type: "unfollow", run: "r" });
});

test("after a lost link the stream goes on where it stopped, and repeats are dropped", () => {
  const { sent, outputs, watcher } = made();
  const one = watcher();
  outputs.follow("r", one);
  outputs.received({ run: "r", pieces: [piece(0), piece(1)], done: false });
  outputs.again();
  expect(sent[1]).toEqual({ type: "follow", run: "r", from: 2 });
  outputs.received({ run: "r", pieces: [piece(1), piece(2)], done: true });
  expect(one).toMatchObject({ seen: [0, 1, 2], ended: 1 });
});

test("no more runs are asked for than the controller allows, and the others get their turn", () => {
  const { sent, outputs, watcher } = made();
  const follows = () => sent.filter((message) => message.type === "follow").map((message) => message.run);
  const watchers = Array.from({ length: MAX_FOLLOWED + 3 }, watcher);
  const leave = watchers.map((each, index) => outputs.follow(`r${index}`, each));
  expect(follows()).toHaveLength(MAX_FOLLOWED);
  outputs.received({ run: "r3", pieces: [piece(0)], done: true });
  leave[5]?.();
  expect(follows().slice(MAX_FOLLOWED)).toEqual([`r${MAX_FOLLOWED}`, `r${MAX_FOLLOWED + 1}`]);
  // One that waits is left without a word, and after a lost link the same hold their places.
  leave[MAX_FOLLOWED + 2]?.();
  sent.length = 0;
  outputs.again();
  expect(follows()).toHaveLength(MAX_FOLLOWED);
  expect(follows()).not.toContain("r3");
});

test("a run that cannot be followed ends with the reason, also for a view that is opened later", () => {
  const { outputs, watcher } = made();
  const reasons: string[] = [];
  const [first, second] = [watcher(), watcher()].map((each) => ({
    ...each,
    problem: (reason: string) => void reasons.push(reason),
  }));
  const ends = vi.fn();
  outputs.follow("r", { ...first!, done: ends });
  outputs.unfollowed({ run: "r", reason: "the register cannot be read" });
  outputs.follow("r", { ...second!, done: ends });
  expect(reasons).toEqual(["the register cannot be read", "the register cannot be read"]);
  expect(ends).toHaveBeenCalledTimes(2);
});
