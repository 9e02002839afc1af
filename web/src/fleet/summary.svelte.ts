// How the fleet stands, in three numbers, for the top line, the title and the icon.

import type { Health } from "../live/health";
import { live } from "../live/live.svelte";

export interface Summary {
  ok: number;
  warning: number;
  offline: number;
  /** The worst of it; `link` when nothing is known because there is no link. */
  health: Health | "link";
}

export function summarise(): Summary {
  live.membership.read();
  live.samples.read();
  const counts = { ...live.standing };
  const worst = counts.offline > 0 ? "offline" : counts.warning > 0 ? "warning" : "ok";
  return { ...counts, health: live.link === "open" && live.ready ? worst : "link" };
}

/** The page's title and icon show the fleet's state while another tab is open. */
export function showInTab(summary: Summary): void {
  const { ok, warning, offline } = summary;
  const parts = [offline > 0 && `${offline} offline`, warning > 0 && `${warning} warning`, `${ok} ok`].filter(Boolean);
  document.title = summary.health === "link" ? "… Pi Stat" : `${parts.join(" · ")} — Pi Stat`;
  const icon = document.querySelector<HTMLLinkElement>('link[rel="icon"]');
  const href = `./icon-${summary.health}.svg`;
  if (icon && icon.getAttribute("href") !== href) {
    icon.setAttribute("href", href);
  }
}
