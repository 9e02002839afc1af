// Focuses the heading of a view that was navigated to, so that a screen reader announces it and Tab
// begins there.

import { ui } from "./ui.svelte";

/** For a view's heading. The page that is opened first takes no focus. */
export function arrive(node: HTMLElement): void {
  if (ui.moves > 0) {
    node.tabIndex = -1;
    node.focus({ preventScroll: true });
  }
}
