// What the dashboard transfers, compressed: everything, and what a cold load of the first page asks
// for. `npm run size`.

import { readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const DIST = join(dirname(fileURLToPath(import.meta.url)), "../dist");

/** What the README promises for everything together, in bytes. */
const GOAL = 350_000;

const entries = await readdir(DIST, { recursive: true, withFileTypes: true });
const names = entries
  .filter((entry) => entry.isFile() && !/\.(?:br|gz)$/.test(entry.name))
  .map((entry) => join(entry.parentPath, entry.name));
const rows: Array<[string, number]> = [];
for (const name of names) {
  const compressed = await stat(`${name}.br`).catch(() => stat(name));
  rows.push([name.slice(DIST.length + 1), compressed.size]);
}
const total = rows.reduce((sum, [, size]) => sum + size, 0);
for (const [name, size] of rows.sort((a, b) => b[1] - a[1]))
  console.log(`${(size / 1000).toFixed(1).padStart(8)} kB  ${name}`);
console.log(`${(total / 1000).toFixed(1).padStart(8)} kB  everything, compressed (goal: less than ${GOAL / 1000} kB)`);
process.exitCode = total < GOAL ? 0 : 1;
