// How much room there is.

/** Below this width there is one panel at a time. */
const NARROW = "(max-width: 760px)";

class Screen {
  narrow = $state(false);

  constructor() {
    const media = globalThis.matchMedia?.(NARROW);
    if (media) {
      this.narrow = media.matches;
      media.addEventListener("change", () => (this.narrow = media.matches));
    }
  }
}

export const screen = new Screen();
