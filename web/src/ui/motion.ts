// Numbers and bars that move to their new value in a few steps, as a meter does. One clock for all,
// and none runs when nothing changes.
//
// Steps instead of a glide: sixty repaints a second of a thousand machines would cost more than is
// visible.

/** How long a value moves, in milliseconds. */
const LASTS = 420;

/** How long a step is, in milliseconds. */
const STEP = 140;

/**
 * A smaller change is shown at once: it is less than a segment of a bar, and three steps to the
 * next number are invisible.
 */
const WORTH = 3;

interface Move {
  from: number;
  to: number;
  start: number;
  show: (value: number) => void;
}

const moves = new Map<object, Move>();
let timer: ReturnType<typeof setTimeout> | undefined;
const reduced = globalThis.matchMedia?.("(prefers-reduced-motion: reduce)");

/**
 * Shows `to`, by way of the values from `from` where motion is welcome. `what` is the thing that
 * moves: a new move takes the old one's place.
 */
export function moveTo(what: object, from: number | undefined, to: number, show: (value: number) => void): void {
  if (from === undefined || Math.abs(from - to) < WORTH || reduced?.matches || document.hidden) {
    moves.delete(what);
    show(to);
    return;
  }
  moves.set(what, { from, to, start: performance.now(), show });
  if (timer === undefined) timer = setTimeout(step, STEP / 2);
}

/** Stops a move, because the thing goes away. */
export function stopMove(what: object): void {
  moves.delete(what);
}

function step(): void {
  timer = undefined;
  requestAnimationFrame((now) => {
    for (const [what, { from, to, start, show }] of moves) {
      const share = Math.min((now - start) / LASTS, 1);
      show(from + (to - from) * (1 - (1 - share) ** 2));
      if (share >= 1) {
        moves.delete(what);
      }
    }
    if (moves.size > 0) {
      timer = setTimeout(step, STEP);
    }
  });
}
