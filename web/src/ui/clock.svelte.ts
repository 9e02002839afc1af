// One second's beat for everything that shows an age or the time.

class Clock {
  beat = $state(0);

  constructor() {
    setInterval(() => {
      if (!document.hidden) {
        this.beat += 1;
      }
    }, 1_000);
  }
}

export const clockwork = new Clock();
