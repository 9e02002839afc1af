// Where a chart's lines across stand, and what is written beside them. Pure.

/** About how many there are. */
const WANTED = 3.4;

/** Steps that people read without counting. */
const ROUND = [1, 2, 2.5, 5, 10];

/** Round values between two bounds, neither of them included. */
export function ticks(bottom: number, top: number): number[] {
  const rough = (top - bottom) / WANTED;
  if (!(rough > 0)) {
    return [];
  }
  const scale = 10 ** Math.floor(Math.log10(rough));
  const step = scale * (ROUND.find((each) => each * scale >= rough * 0.85) ?? 10);
  const found: number[] = [];
  for (let count = Math.floor(bottom / step) + 1; count * step < top * 0.999; count += 1) {
    found.push(count * step);
  }
  return found;
}

/** `2.5k`: a rate beside its line, without the unit that the title has. */
export function shortAmount(value: number): string {
  const units = ["", "k", "M", "G", "T"];
  let rest = value;
  let unit = 0;
  while (rest >= 1000 && unit < units.length - 1) {
    rest /= 1000;
    unit += 1;
  }
  return `${Math.round(rest * 10) / 10}${units[unit]}`;
}
