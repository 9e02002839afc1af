// Numbers that count to their new value. One clock for all of them, and none runs when nothing changes.

/** How long a number counts, in milliseconds: as long as the bars move (`--beat`). */
const LASTS = 420;

/** A number shows a new figure at most this often, in milliseconds: more is not seen and only costs. */
const STEP = 70;

interface Count {
  node: Text;
  from: number;
  to: number;
  start: number;
  format: (value: number) => string;
}

const counts = new Map<Text, Count>();
let timer: ReturnType<typeof setTimeout> | undefined;
const reduced = globalThis.matchMedia?.("(prefers-reduced-motion: reduce)");

/** Shows `to` in the node, counting from `from` where motion is welcome. */
export function countTo(node: Text, from: number | undefined, to: number, format: (value: number) => string): void {
  if (from === undefined || Math.abs(from - to) < 1.5 || reduced?.matches || document.hidden) {
    counts.delete(node);
    node.data = format(to);
    return;
  }
  counts.set(node, { node, from, to, start: performance.now(), format });
  timer ??= setTimeout(step, STEP);
}

function step(): void {
  timer = undefined;
  requestAnimationFrame((now) => {
    for (const count of counts.values()) {
      const share = Math.min((now - count.start) / LASTS, 1);
      const eased = 1 - (1 - share) ** 3;
      const text = count.format(count.from + (count.to - count.from) * eased);
      if (text !== count.node.data) {
        count.node.data = text;
      }
      if (share >= 1 || !count.node.isConnected) {
        counts.delete(count.node);
      }
    }
    if (counts.size > 0) {
      timer ??= setTimeout(step, STEP);
    }
  });
}
