// Where somebody arrives who went to another view: at its heading, so that a screen reader says it and Tab begins there.

import { ui } from "./ui.svelte";

/** For a view's heading. The page that is opened first takes no focus. */
export function arrive(node: HTMLElement): void {
  if (ui.moves > 0) {
    node.tabIndex = -1;
    node.focus({ preventScroll: true });
  }
}
