// Prefetches the other views: later the controller may be another version, or away.

/** How long the first page has the network and the processor for itself, in milliseconds. */
const AHEAD_AFTER = 5_000;

export function fetchAhead(): void {
  const rest = [
    () => import("../machine/MachinePage.svelte"),
    () => import("../runs/Runs.svelte"),
    () => import("../runs/RunPage.svelte"),
    () => import("../settings/Settings.svelte"),
  ];
  // Some browsers have no idle callback; one after the other is slow enough there.
  const idle = (work: () => void): unknown =>
    "requestIdleCallback" in window ? requestIdleCallback(work) : setTimeout(work, 200);
  const next = (): void =>
    void rest
      .shift()?.()
      .then(
        () => idle(next),
        () => undefined,
      );
  setTimeout(() => idle(next), AHEAD_AFTER);
}
