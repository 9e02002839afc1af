// uPlot in this page: one look for all charts, taken from tokens.css.

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

export interface Line {
  label: string;
  /** A token of tokens.css. */
  colour: string;
  fill?: boolean;
  width?: number;
  /** Whether it goes in steps, as states do. */
  steps?: boolean;
}

export interface Look {
  lines: Line[];
  /** Fixed bounds; without a top the chart finds its own. */
  bottom: number;
  top?: number;
  /** A value that is marked by a dotted line. */
  mark?: number;
}

export type Columns = [number[], ...Array<Array<number | null>>];

const token = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export function createChart(host: HTMLElement, look: Look, data: Columns, width: number, height: number): uPlot {
  const fontSize = parseFloat(getComputedStyle(document.documentElement).fontSize) * 0.76;
  const dim = token("dim");
  const line = token("line");
  const font = `${fontSize}px ${token("mono")}`;
  return new uPlot(
    {
      width,
      height,
      padding: [6, 4, 0, 4],
      legend: { show: false },
      cursor: { points: { size: 6 }, drag: { x: false, y: false }, y: false, sync: { key: "machine" } },
      scales: { x: { time: true }, y: { range: (_chart, least, most) => bounds(look, least, most) } },
      axes: [
        { stroke: dim, font, size: fontSize * 2, gap: 4, grid: { show: false }, ticks: { show: false }, space: 90, values: (_chart, times) => times.map(shortTime(times)) },
        { show: true, size: 0, stroke: "transparent", grid: { stroke: line, width: 1, dash: [2, 4] }, ticks: { show: false }, values: () => [], splits: (_chart, _axis, least, most) => [0.25, 0.5, 0.75].map((share) => least + (most - least) * share) },
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
    width: (each.width ?? 1.4) * Math.min(devicePixelRatio, 2),
    points: { show: false },
    spanGaps: false,
  };
  if (each.fill) {
    found.fill = `color-mix(in srgb, ${colour} 16%, transparent)`;
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

function shortTime(times: number[]): (time: number) => string {
  const wide = (times[times.length - 1] ?? 0) - (times[0] ?? 0) > 20 * 3600;
  const seconds = (times[1] ?? 0) - (times[0] ?? 0) < 60;
  const two = (part: number): string => String(part).padStart(2, "0");
  return (time) => {
    const date = new Date(time * 1000);
    const short = `${two(date.getHours())}:${two(date.getMinutes())}`;
    return wide && short === "00:00" ? `${date.getDate()}.${date.getMonth() + 1}.` : seconds ? `${short}:${two(date.getSeconds())}` : short;
  };
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
