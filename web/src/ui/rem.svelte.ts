// The root's font size in pixels: what virtual lists need to know to place rows that CSS sizes in
// rem.

class Rem {
  pixels = $state(14);

  constructor() {
    if (typeof window !== "undefined") {
      this.#measure();
      addEventListener("resize", () => this.#measure());
    }
  }

  #measure(): void {
    this.pixels = parseFloat(getComputedStyle(document.documentElement).fontSize) || 14;
  }
}

export const rem = new Rem();
