// Draws the PNG icons of the manifest from the SVG mark: `npx tsx screenshots/icons.ts`.

import { readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { launch } from "../tests/chromium";

const PUBLIC = join(dirname(fileURLToPath(import.meta.url)), "../public");
const browser = await launch();
const svg = await readFile(join(PUBLIC, "icon-ok.svg"), "utf8");
for (const size of [192, 512]) {
  const page = await browser.newPage({ viewport: { width: size, height: size } });
  // Maskable icons fill their square: the ground goes to the edges.
  await page.setContent(
    `<body style="margin:0;background:#060b09">${svg.replace("<svg ", `<svg width="${size}" height="${size}" `)}</body>`,
  );
  await writeFile(join(PUBLIC, `icon-${size}.png`), await page.screenshot());
}
await browser.close();
