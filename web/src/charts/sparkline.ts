// The path of a sparkline: pure geometry, drawn by a component.

/** How much of the height 100 per cent takes. */
const TOP = 0.92;

export interface Sparkline {
  line: string;
  area: string;
}

/** Paths in a box of `values.length - 1` by `height`; where values are null there is a gap. */
export function sparkline(values: ReadonlyArray<number | null>, height: number): Sparkline {
  let line = "";
  let area = "";
  for (const [start, end] of stretches(values)) {
    const points: string[] = [];
    for (let x = start; x <= end; x += 1) {
      const y = height - 0.5 - ((values[x] ?? 0) / 100) * (height - 1) * TOP;
      points.push(`${x} ${Math.round(y * 10) / 10}`);
    }
    line += `M${points.join("L")}`;
    area += `M${start} ${height}L${points.join("L")}L${end} ${height}Z`;
  }
  return { line, area };
}

/** The stretches without a gap, as first and last index. */
function stretches(values: ReadonlyArray<number | null>): Array<[number, number]> {
  const found: Array<[number, number]> = [];
  values.forEach((value, x) => {
    const last = found[found.length - 1];
    if (value === null) {
      return;
    }
    if (last && last[1] === x - 1) {
      last[1] = x;
    } else {
      found.push([x, x]);
    }
  });
  return found;
}
