// uPlot in this page: one look for all charts, taken from tokens.css.

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { clock, monthName, shortClock, shortDay, yearName } from "../ui/dates";
import type { Mark } from "./known";
import { ticks, timeStyle, times } from "./ticks";

export interface Line {
  label: string;
  /** A token of tokens.css. */
  colour: string;
  /** The token of what lies between the line and its base. */
  fill?: string;
  /** How much of that token, in per cent. */
  strength?: number;
  width?: number;
  /** Whether it goes in steps, as states do. */
  steps?: boolean;
  /** From where on it is filled; the chart's bottom if it says nothing. */
  base?: number;
  /** Whether the columns after those of the lines have its greatest and its least values. */
  band?: boolean;
  /** How long its dashes are, and the gaps between them. */
  dash?: number[];
  /** Whether its values are seen where each stands alone. */
  dots?: boolean;
}

/** The time axis that all charts of a page share. */
export interface Axis {
  /** What is shown, in seconds since 1970. */
  bounds: () => readonly [from: number, to: number];
  /** Of which times nothing is known, and what is marked. */
  overlay: () => { unknown: ReadonlyArray<readonly [from: number, to: number]>; marks: readonly Mark[] };
  /** A time was chosen with the pointer. */
  zoom: (from: number, to: number) => void;
  /** More is to be shown. */
  widen: () => void;
}

export interface Look {
  lines: Line[];
  /** Fixed bounds; without a top the chart finds its own. */
  bottom: number;
  top?: number;
  /** A value that is marked by a dotted line. */
  mark?: number;
  /** What is written beside the lines across. */
  tick: (value: number) => string;
  /** Where those lines are; without it at round values. */
  lanes?: number[];
  /** The size of the unit in which those values are round; 1 if it says nothing. */
  one?: number;
}

/** A value of a line; nothing where nothing is known. */
export type Value = number | null | undefined;

/** A value as text: in its line's colour where there are several, in red where it is critical. */
export interface Reading {
  text: string;
  colour?: "accent" | "info" | "critical";
  /** The token of any other line's colour. */
  token?: string;
}

export type Columns = [number[], ...Array<Array<number | null>>];

const token = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export function createChart(
  host: HTMLElement,
  look: Look,
  data: Columns,
  axis: Axis,
  width: number,
  height: number,
): uPlot {
  // Whole pixels: uPlot scales the first whole number of a font for the screen's density.
  const fontSize = Math.round(parseFloat(getComputedStyle(document.documentElement).fontSize) * 0.78);
  const dim = token("dim");
  const line = token("line");
  const font = `${fontSize}px ${token("mono")}`;
  const chart = new uPlot(
    {
      width,
      height,
      padding: [6, fontSize * 2, 0, 0],
      legend: { show: false },
      cursor: {
        points: { size: 6 },
        drag: { x: true, y: false, setScale: false, dist: 6 },
        y: false,
        bind: {
          dblclick: () => () => {
            axis.widen();
            return null;
          },
        },
        // The others follow the pointer; the time is chosen in one.
        sync: { key: "machine", filters: { pub: (type) => type === "mousemove", sub: () => true } },
      },
      scales: {
        x: { time: true, range: () => [...axis.bounds()] },
        y: { range: (_chart, least, most) => bounds(look, least, most) },
      },
      axes: [
        {
          stroke: dim,
          font,
          size: fontSize * 2,
          gap: 4,
          grid: { show: false },
          ticks: { show: false },
          space: (_chart, _axis, least, most) => fontSize * times(most - least).room,
          incrs: (_chart, _axis, least, most) => times(most - least).steps,
          values: (_chart, splits) => splits.map(shortTime(splits)),
        },
        {
          stroke: dim,
          font,
          size: fontSize * 2.9,
          gap: 6,
          grid: { stroke: line, width: 1, dash: [2, 4] },
          ticks: { show: false },
          values: (_chart, values) => values.map(look.tick),
          splits: (_chart, _axis, least, most) => look.lanes ?? ticks(least, most, look.one),
        },
      ],
      series: [{}, ...look.lines.map((each) => series(each)), ...look.lines.flatMap(edges)],
      bands: bands(look),
      hooks: {
        drawClear: [(chart) => hatch(chart, axis.overlay().unknown)],
        draw: [
          (chart) => {
            if (look.mark !== undefined) mark(chart, look.mark);
            for (const each of axis.overlay().marks) moment(chart, each);
          },
        ],
        setSelect: [(chart) => chosen(chart, axis)],
      },
    },
    data as uPlot.AlignedData,
    host,
  );
  followTouch(chart);
  return chart;
}

/** The greatest and the least values of a line: not drawn, but the band between them is. */
function edges(each: Line): uPlot.Series[] {
  const edge = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: false };
  return each.band ? [edge, edge] : [];
}

function bands(look: Look): uPlot.Band[] {
  let at = look.lines.length + 1;
  return look.lines.flatMap((each) => {
    if (!each.band) return [];
    const fill = `color-mix(in srgb, ${token(each.colour)} 26%, transparent)`;
    const band: uPlot.Band = { series: [at, at + 1], fill };
    at += 2;
    return [band];
  });
}

/** Hands over the time that was chosen with the pointer, and takes the selection away. */
function chosen(chart: uPlot, axis: Axis): void {
  const { left, width } = chart.select;
  if (width <= 0) return;
  const [from, to] = [left, left + width].map((at) => chart.posToVal(at, "x"));
  chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  if (from !== undefined && to !== undefined) axis.zoom(from, to);
}

/**
 * A finger moves the cursor, and leaves it where it was lifted. uPlot itself follows a mouse only.
 */
function followTouch(chart: uPlot): void {
  const follow = (event: PointerEvent): void => {
    if (event.pointerType === "mouse") return;
    const { left, top } = chart.over.getBoundingClientRect();
    chart.setCursor({ left: event.clientX - left, top: event.clientY - top });
  };
  chart.over.style.touchAction = "pan-y";
  chart.over.addEventListener("pointerdown", follow);
  chart.over.addEventListener("pointermove", follow);
}

function series(each: Line): uPlot.Series {
  const colour = token(each.colour);
  const found: uPlot.Series = {
    label: each.label,
    stroke: colour,
    width: each.width ?? 1.4,
    points: { show: false },
    spanGaps: false,
  };
  if (each.dash) found.dash = each.dash;
  if (each.dots) found.points = { show: true, size: 3, width: 0, fill: colour };
  if (each.fill) {
    found.fill = `color-mix(in srgb, ${token(each.fill)} ${each.strength ?? 16}%, transparent)`;
    if (each.base !== undefined) found.fillTo = each.base;
  }
  const stepped = uPlot.paths.stepped;
  if (each.steps && stepped) {
    found.paths = stepped({ align: 1 });
  }
  return found;
}

function bounds(look: Look, _least: number | null, most: number | null): [number, number] {
  return [look.bottom, look.top ?? Math.max((most ?? 0) * 1.15, look.bottom + 1)];
}

/** A time below the plot; where days or years change, they stand in its place. */
function shortTime(times: number[]): (time: number) => string {
  const style = timeStyle((times[1] ?? 0) - (times[0] ?? 0));
  const days = (times[times.length - 1] ?? 0) - (times[0] ?? 0) > 20 * 3600;
  return (time) => {
    const at = time * 1000;
    const date = new Date(at);
    if (style === "years" || (style === "months" && date.getMonth() === 0)) return yearName(at);
    if (style === "months") return monthName(at);
    if (style === "days" || (days && date.getHours() + date.getMinutes() === 0)) return shortDay(at);
    return style === "seconds" ? clock(at) : shortClock(at);
  };
}

/** A part of the plot, in pixels of its canvas; undefined where it lies outside. */
function across(chart: uPlot, from: number, to: number): { left: number; width: number } | undefined {
  const { left, width } = chart.bbox;
  const [start, end] = [from, to].map((time) =>
    Math.max(left, Math.min(Math.round(chart.valToPos(time, "x", true)), left + width)),
  );
  return start !== undefined && end !== undefined && end > start ? { left: start, width: end - start } : undefined;
}

/** Times of which nothing is known are hatched. */
function hatch(chart: uPlot, gaps: ReadonlyArray<readonly [number, number]>): void {
  const { ctx } = chart;
  const { top, height } = chart.bbox;
  const apart = Math.round(7 * devicePixelRatio);
  for (const [from, to] of gaps) {
    const part = across(chart, from, to);
    if (!part) continue;
    ctx.save();
    ctx.beginPath();
    ctx.rect(part.left, top, part.width, height);
    ctx.clip();
    ctx.strokeStyle = token("line-strong");
    ctx.globalAlpha = 0.6;
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    const first = Math.floor((part.left - height) / apart) * apart;
    for (let x = first; x < part.left + part.width; x += apart) {
      ctx.moveTo(x, top + height);
      ctx.lineTo(x + height, top);
    }
    ctx.stroke();
    ctx.restore();
  }
}

/** A moment: a line down the plot, with a flag on its top. */
function moment(chart: uPlot, { time, kind }: Mark): void {
  const { min, max } = chart.scales.x ?? {};
  if (min == null || max == null || time < min || time > max) return;
  const { ctx } = chart;
  const { top, height } = chart.bbox;
  const x = Math.round(chart.valToPos(time, "x", true)) + 0.5;
  const flag = 5 * devicePixelRatio;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = token(kind === "reboot" ? "warn" : "info-text");
  ctx.setLineDash(kind === "reboot" ? [] : [2 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.globalAlpha = 0.75;
  ctx.beginPath();
  ctx.moveTo(x, top);
  ctx.lineTo(x, top + height);
  ctx.stroke();
  ctx.beginPath();
  ctx.moveTo(x - flag / 2, top);
  ctx.lineTo(x + flag / 2, top);
  ctx.lineTo(x, top + flag);
  ctx.fill();
  ctx.restore();
}

function mark(chart: uPlot, value: number): void {
  const y = Math.round(chart.valToPos(value, "y", true));
  const { left, width, top, height } = chart.bbox;
  if (y < top || y > top + height) {
    return;
  }
  chart.ctx.save();
  chart.ctx.strokeStyle = token("warn");
  chart.ctx.setLineDash([1.5, 2.5]);
  chart.ctx.beginPath();
  chart.ctx.moveTo(left, y);
  chart.ctx.lineTo(left + width, y);
  chart.ctx.stroke();
  chart.ctx.restore();
}
