// What this browser remembers: theme, layout, densities. One key of localStorage; a browser that
// refuses it just forgets.

export const THEMES = ["phosphor", "amber", "paper"] as const;
export type Theme = (typeof THEMES)[number];
export const DENSITIES = ["cards", "table", "wall"] as const;
export type Density = (typeof DENSITIES)[number];
export const WALL_METRICS = ["cpu", "ram", "temp", "disk"] as const;
export type WallMetric = (typeof WALL_METRICS)[number];

const KEY = "pistat";

interface Stored {
  theme: Theme;
  scanLines: boolean;
  density: Density;
  wallMetric: WallMetric;
  /** Share of the width that the terminal takes. */
  terminalShare: number;
  /** Share of the height that STATS takes of its column. */
  statsShare: number;
  folded: string[];
  sort: string;
  descending: boolean;
  /** The columns of the table by their names; null for as many as there is room for. */
  columns: string[] | null;
  /** Whether long lines of output go on in the next row. */
  wrap: boolean;
  /** Whether the terminal speaks to screen readers; it costs, so it is asked for. */
  screenReader: boolean;
}

const DEFAULTS: Stored = {
  theme: "phosphor",
  scanLines: true,
  density: "cards",
  wallMetric: "cpu",
  terminalShare: 0.415,
  statsShare: 0.72,
  folded: [],
  sort: "label",
  descending: false,
  columns: null,
  wrap: true,
  screenReader: false,
};

function read(): Stored {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Stored>;
    const merged = { ...DEFAULTS, ...stored };
    return {
      ...merged,
      theme: THEMES.includes(merged.theme) ? merged.theme : DEFAULTS.theme,
      density: DENSITIES.includes(merged.density) ? merged.density : DEFAULTS.density,
      wallMetric: WALL_METRICS.includes(merged.wallMetric) ? merged.wallMetric : DEFAULTS.wallMetric,
      folded: Array.isArray(merged.folded) ? merged.folded : [],
      columns: Array.isArray(merged.columns) ? merged.columns : null,
    };
  } catch {
    return { ...DEFAULTS };
  }
}

export const settings = $state(read());

/** Remembers every change and shows the theme; called once. */
export function keepSettings(): void {
  $effect.root(() => {
    $effect(() => {
      try {
        localStorage.setItem(KEY, JSON.stringify(settings));
      } catch {
        // Private windows may refuse; the page works all the same.
      }
    });
    $effect(() => showTheme(settings.theme, settings.scanLines));
  });
}

function showTheme(theme: Theme, scanLines: boolean): void {
  const root = document.documentElement;
  root.dataset.theme = theme;
  root.dataset.scan = scanLines ? "on" : "off";
  const colour = getComputedStyle(root).getPropertyValue("--bg").trim();
  document.querySelector('meta[name="theme-color"]')?.setAttribute("content", colour);
}

export function isTheme(name: string): name is Theme {
  return (THEMES as readonly string[]).includes(name);
}

export function unfold(panel: string): void {
  settings.folded = settings.folded.filter((name) => name !== panel);
}

export function fold(panel: string): void {
  settings.folded = settings.folded.includes(panel)
    ? settings.folded.filter((name) => name !== panel)
    : [...settings.folded, panel];
}
