import { expect, test } from "vitest";
import { Outputs } from "./outputs";
import type { ClientMessage, OutputPiece } from "./protocol/types";

const piece = (seq: number): OutputPiece => ({ seq, stream: "stdout", data: `${seq}\n`, gap_bytes: 0 });

function made() {
  const sent: ClientMessage[] = [];
  const outputs = new Outputs((message) => {
    sent.push(message);
    return true;
  });
  const watcher = () => {
    const seen: number[] = [];
    const watch = { seen, ended: 0, pieces: (pieces: OutputPiece[]) => void seen.push(...pieces.map((each) => each.seq)), done: () => void (watch.ended += 1) };
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
  expect([first.seen, second.seen]).toEqual([[0, 1, 2], [0, 1, 2]]);
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
