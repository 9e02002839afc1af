// CPU of the last minutes of one machine, in steps of ten seconds: what a sparkline shows.
//
// Sixty bytes a machine. The newest step is the mean of the samples so far, so that the line moves
// with each sample.

/** How long a step is: the controller sends its values at this cadence. */
export const STEP_SECONDS = 10;

/** How many steps are kept: ten minutes. */
export const STEPS = 60;

/** A step without a sample. */
const UNKNOWN = 255;

export class Recent {
  /** Counts the changes, so that a drawing can tell whether it is old. */
  version = 0;
  readonly #values = new Uint8Array(STEPS).fill(UNKNOWN);
  #step = 0;
  #sum = 0;
  #count = 0;

  /** Takes over what a snapshot says: oldest first, the last one being the newest. */
  static from(values: ReadonlyArray<number | null>, now: number): Recent {
    const recent = new Recent();
    recent.#step = stepOf(now);
    const newest = values.slice(-STEPS);
    const offset = STEPS - newest.length;
    newest.forEach((value, index) => {
      recent.#values[offset + index] = value === null ? UNKNOWN : clamp(value);
    });
    const last = recent.#values[STEPS - 1] ?? UNKNOWN;
    if (last !== UNKNOWN) {
      recent.#sum = last;
      recent.#count = 1;
    }
    return recent;
  }

  /** Adds a sample that arrived at `now` (milliseconds of the controller's clock). */
  push(now: number, value: number | undefined): void {
    this.#advance(stepOf(now));
    if (value === undefined) {
      return;
    }
    this.#sum += value;
    this.#count += 1;
    const mean = clamp(this.#sum / this.#count);
    if (this.#values[STEPS - 1] !== mean) {
      this.#values[STEPS - 1] = mean;
      this.version += 1;
    }
  }

  /** The values, oldest first; null where there was no sample. */
  values(): Array<number | null> {
    return Array.from(this.#values, (value) => (value === UNKNOWN ? null : value));
  }

  #advance(step: number): void {
    // A clock that went backwards starts a new step; it never erases.
    const steps = this.#step === 0 ? 0 : Math.min(Math.max(step - this.#step, 0), STEPS);
    this.#step = step;
    if (steps > 0) {
      this.#values.copyWithin(0, steps);
      this.#values.fill(UNKNOWN, STEPS - steps);
      this.#sum = this.#count = 0;
      this.version += 1;
    }
  }
}

function stepOf(now: number): number {
  return Math.floor(now / (STEP_SECONDS * 1000));
}

function clamp(value: number): number {
  return Math.max(0, Math.min(100, Math.round(value)));
}
