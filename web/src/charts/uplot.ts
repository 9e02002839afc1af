// uPlot in this page: one look for all charts, taken from tokens.css.

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { clock, shortClock, shortDay } from "../ui/dates";
import { ticks, times } from "./ticks";

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

/**
 * A value as it is said: in its line's colour where there are several, in red where it is too much.
 */
export interface Told {
  text: string;
  colour?: "accent" | "info" | "critical";
}

export type Columns = [number[], ...Array<Array<number | null>>];

const token = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export function createChart(host: HTMLElement, look: Look, data: Columns, width: number, height: number): uPlot {
  // Whole pixels: uPlot scales the first whole number of a font for the screen's density.
  const fontSize = Math.round(parseFloat(getComputedStyle(document.documentElement).fontSize) * 0.78);
  const dim = token("dim");
  const line = token("line");
  const font = `${fontSize}px ${token("mono")}`;
  return new uPlot(
    {
      width,
      height,
      padding: [6, fontSize * 2, 0, 0],
      legend: { show: false },
      cursor: { points: { size: 6 }, drag: { x: false, y: false }, y: false, sync: { key: "machine" } },
      scales: { x: { time: true }, y: { range: (_chart, least, most) => bounds(look, least, most) } },
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
      series: [{}, ...look.lines.map((each) => series(each))],
      hooks: { draw: look.mark === undefined ? [] : [(chart) => mark(chart, look.mark ?? 0)] },
    },
    data as uPlot.AlignedData,
    host,
  );
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

/** A time below the plot; where days change, the day stands in its place. */
function shortTime(times: number[]): (time: number) => string {
  const days = (times[times.length - 1] ?? 0) - (times[0] ?? 0) > 20 * 3600;
  const seconds = (times[1] ?? 0) - (times[0] ?? 0) < 60;
  return (time) => {
    const at = time * 1000;
    return days && startsDay(at) ? shortDay(at) : seconds ? clock(at) : shortClock(at);
  };
}

function startsDay(time: number): boolean {
  const date = new Date(time);
  return date.getHours() === 0 && date.getMinutes() === 0;
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
