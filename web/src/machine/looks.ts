// What a group of columns looks like as a chart, what is drawn in it, and how its values are
// written.
// Pure.

import type { Group, LineOf, Unit } from "../charts/groups";
import { align, late, live } from "../charts/known";
import { lanes, POWER_LOOK } from "../charts/lanes";
import type { Series, Values } from "../charts/series";
import { rateTick } from "../charts/ticks";
import type { Columns, Line, Look, Reading, Value } from "../charts/uplot";
import { LIMITS, level, type Metric } from "../live/health";
import { type ByteUnit, bytes, inBytes } from "../ui/format";

/** The colours of a chart's lines, in turn: the first two are those of its values. */
const COLOURS = ["accent", "info-text", "ansi-5", "ansi-3", "ansi-1", "ansi-6", "ansi-12", "ansi-9"];
const colourOf = (at: number): string => COLOURS[at % COLOURS.length] ?? "dim";

/** The cores' lines, in turn: on a Pi each of the four has its own. */
const CORE_COLOURS = ["ansi-6", "ansi-5", "ansi-3", "ansi-1"];
export const coreColour = (core: number): string => CORE_COLOURS[core % CORE_COLOURS.length] ?? "dim";

const METRICS: Record<string, Metric> = { cpu: "cpu", memory: "memory", temperature: "temperature" };

/** What a chart shows besides its own lines. */
export interface Extras {
  /** How many cores have lines of their own. */
  cores: number;
  /** Whether some values arrived late: they are dotted. */
  hasLate: boolean;
  /** Whether each step has a least and a greatest value. */
  hasBand: boolean;
  /** Whether there is something to compare with. */
  hasOther: boolean;
  /** The unit of sizes and rates. */
  byteUnit: ByteUnit;
}

const DOTS = [2, 3];
const DASHES = [6, 4];

/** The fixed bounds of a unit; without a top the chart finds its own. */
const SCALES: Record<Unit, { bottom: number; top?: number }> = {
  percent: { bottom: 0, top: 100 },
  celsius: { bottom: 20, top: 90 },
  dbm: { bottom: -100, top: -20 },
  rate: { bottom: 0 },
  bytes: { bottom: 0 },
  flags: { bottom: 0 },
  number: { bottom: 0 },
  mhz: { bottom: 0 },
};

/** The lines of a chart come in this order: its own, its late ones, its cores, the other. */
export function lookOf(group: Group, extras: Extras): Look {
  if (group.unit === "flags") return POWER_LOOK;
  const isBytes = group.unit === "rate" || group.unit === "bytes";
  const own = group.lines.map(
    ({ label }, at): Line => ({
      label,
      colour: colourOf(at),
      ...(at === 0 ? { fill: "accent", band: extras.hasBand } : {}),
      ...(at === 0 && extras.hasBand ? { strength: 7 } : {}),
    }),
  );
  const dotted = extras.hasLate
    ? group.lines.map(
        ({ label }, at): Line => ({ label: `${label}, late`, colour: colourOf(at), dash: DOTS, dots: true }),
      )
    : [];
  const cores = Array.from(
    { length: extras.cores },
    (_, core): Line => ({ label: `core ${core}`, colour: coreColour(core), width: 0.9 }),
  );
  const other: Line[] = extras.hasOther ? [{ label: "compared", colour: "dim", dash: DASHES, width: 1.2 }] : [];
  return {
    ...SCALES[group.unit],
    tick: isBytes ? rateTick(extras.byteUnit) : String,
    ...(isBytes ? { one: inBytes(extras.byteUnit) } : {}),
    ...(group.id === "temperature" ? { mark: LIMITS.temperature[1] } : {}),
    lines: [...own, ...dotted, ...cores, ...other],
  };
}

/** A series to compare with, and how much later its times are shown. */
export interface Other {
  series: Series;
  shift: number;
}

/** The columns of a chart, in the order of its look's lines, then the band of the first. */
export function dataOf(group: Group, series: Series, extras: Extras, other: Other | null): Columns {
  const { times, known } = series;
  if (group.unit === "flags") {
    // A state that held at any time of a step is drawn.
    const held = group.lines.map(({ column }) =>
      series.band(column).max.map((value) => (value === null ? null : Number(value > 0))),
    );
    return [times, ...lanes(held)];
  }
  const means = group.lines.map(({ column }) => series.mean(column));
  const own = extras.hasLate ? means.map((values) => live(times, values, known)) : means;
  const dotted = extras.hasLate ? means.map((values) => late(times, values, known)) : [];
  const cores = Array.from({ length: extras.cores }, (_, core) => series.mean(`cpu_cores_percent[${core}]`));
  const compared = extras.hasOther ? [compare(group.lines[0], series, other)] : [];
  const { min, max } = series.band(group.lines[0]?.column ?? "");
  const band = extras.hasBand ? [max, min] : [];
  return [times, ...own, ...dotted, ...cores, ...compared, ...band];
}

function compare(line: LineOf | undefined, series: Series, other: Other | null): Values {
  if (!other || !line) return series.times.map(() => null);
  const reach = Math.max(series.step, other.series.step);
  return align(series.times, other.series.times, other.series.mean(line.column), reach, other.shift);
}

/** `42 %`, `4.2 MiB/s`: a value with its unit. */
export function valueText(unit: Unit, value: number): string {
  switch (unit) {
    case "percent":
      return `${value.toFixed(0)} %`;
    case "celsius":
      return `${value.toFixed(1)} °C`;
    case "rate":
      return `${bytes(value)}/s`;
    case "bytes":
      return bytes(value);
    case "dbm":
      return `${value.toFixed(0)} dBm`;
    case "mhz":
      return `${value.toFixed(0)} MHz`;
    case "flags":
    case "number":
      return String(Math.round(value * 100) / 100);
  }
}

/** `15…23 %`: the unit once, where both have the same. */
function betweenText(unit: Unit, band: readonly [least: number, most: number]): string {
  const [least = "", most = ""] = band.map((value) => valueText(unit, value));
  const same = most.slice(most.indexOf(" "));
  return `${least.endsWith(same) ? least.slice(0, -same.length) : least}…${most}`;
}

/** The values of a chart's lines as text; what is above its limit in red. */
export function readingsOf(
  group: Group,
  extras: Extras,
  values: readonly Value[],
  band: readonly [least: number, most: number] | undefined,
): Reading[] {
  const own = group.lines.map(({ label }, at) => {
    const value = values[at] ?? (extras.hasLate ? values[at + group.lines.length] : undefined);
    return { label, value };
  });
  const [first] = own;
  const between = band && band[0] !== band[1] ? ` (${betweenText(group.unit, band)})` : "";
  const readings: Reading[] = own.every(({ value }) => value == null)
    ? [{ text: "–" }]
    : own.length === 1 && first?.value != null
      ? [{ text: `${valueText(group.unit, first.value)}${between}`, ...colour(group, first.value) }]
      : own.map(({ label, value }, at) => ({
          text: `${label} ${value == null ? "–" : valueText(group.unit, value)}`,
          ...(at === 0
            ? { colour: "accent" as const }
            : at === 1
              ? { colour: "info" as const }
              : { token: colourOf(at) }),
        }));
  const compared = extras.hasOther ? values[group.lines.length * (extras.hasLate ? 2 : 1) + extras.cores] : undefined;
  return compared == null ? readings : [...readings, { text: `┄ ${valueText(group.unit, compared)}`, token: "dim" }];
}

function colour(group: Group, value: number): { colour?: "critical" } {
  const metric = METRICS[group.id];
  return metric && level(metric, value) === "critical" ? { colour: "critical" } : {};
}
