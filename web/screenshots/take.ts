// Takes the pictures of the README from the mock: `npm run screenshots`. Needs a built dashboard.

import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Page } from "@playwright/test";
import { CODE, type Mock, startMock } from "../mock/server";
import { launch } from "../tests/chromium";

const FOLDER = join(dirname(fileURLToPath(import.meta.url)), "../../docs/images");

interface Picture {
  name: string;
  machines: number;
  width: number;
  height: number;
  scale?: number;
  theme: "phosphor" | "amber" | "paper";
  settings?: Record<string, unknown>;
  hash?: string;
  stage?: (page: Page, mock: Mock) => Promise<void>;
}

const PICTURES: Picture[] = [
  { name: "cards", machines: 25, width: 1600, height: 1000, theme: "phosphor", stage: conversation },
  {
    name: "wall",
    machines: 424,
    width: 1600,
    height: 700,
    theme: "phosphor",
    settings: { density: "wall", folded: ["terminal", "logs"] },
  },
  {
    name: "machine-amber",
    machines: 25,
    width: 1600,
    height: 1000,
    theme: "amber",
    hash: "#/pi/pi-4",
    stage: serviceLog,
  },
  {
    name: "machine-year",
    machines: 25,
    width: 1600,
    height: 1000,
    theme: "phosphor",
    hash: "#/pi/pi-10?last=1y&with=pi-4",
    stage: pointed,
  },
  {
    name: "machine-zoom-paper",
    machines: 25,
    width: 1280,
    height: 720,
    theme: "paper",
    hash: "#/pi/pi-10?last=90h&with=-7d",
    stage: pointed,
  },
  {
    name: "machine-phone-amber",
    machines: 25,
    width: 390,
    height: 844,
    scale: 2,
    theme: "amber",
    hash: "#/pi/pi-10?last=7d",
    stage: tapped,
  },
  { name: "paper", machines: 25, width: 1600, height: 1000, theme: "paper", stage: conversation },
  { name: "phone-paper", machines: 25, width: 390, height: 844, scale: 2, theme: "paper" },
  {
    name: "table",
    machines: 25,
    width: 1600,
    height: 1000,
    theme: "phosphor",
    settings: { density: "table", terminalShare: 0.25, folded: ["terminal"] },
  },
  { name: "group", machines: 25, width: 1600, height: 1000, theme: "phosphor", stage: group },
];

async function type(page: Page, line: string): Promise<void> {
  await page.locator(".terminal-host textarea").focus();
  await page.keyboard.type(line);
  await page.keyboard.press("Enter");
}

/** Waits until the terminal shows a text. */
async function shows(page: Page, text: string | RegExp): Promise<void> {
  await page.locator(".xterm-rows").getByText(text).first().waitFor();
}

async function conversation(page: Page): Promise<void> {
  await type(page, "task run uptime pi-1");
  await shows(page, "finished");
  await type(page, "task list");
  await shows(page, "8 tasks");
  await type(page, "task run apt-upgrade @all");
  await shows(page, "[y/N]");
  await page.keyboard.type("y\n");
  await shows(page, /1[67]\/25/);
  await page.locator('[data-pi="pi-1"]').first().focus();
}

async function serviceLog(page: Page): Promise<void> {
  await page.getByRole("button", { name: "1 h" }).click();
  await page.getByRole("button", { name: "Service log" }).click();
  await page.getByRole("button", { name: "run", exact: true }).click();
  await page.getByText("Accepted publickey").waitFor();
}

/** Points at a time in the charts. */
async function pointed(page: Page): Promise<void> {
  const box = await page.locator(".u-over").nth(1).boundingBox();
  await page.mouse.move((box?.x ?? 0) + (box?.width ?? 0) * 0.4, (box?.y ?? 0) + 20);
}

async function tapped(page: Page): Promise<void> {
  await page.locator(".u-over").nth(2).scrollIntoViewIfNeeded();
  await pointed(page);
}

async function group(page: Page, mock: Mock): Promise<void> {
  const { group: id } = mock.controller.request(
    { task: "apt-upgrade", target: "@all", args: {}, confirmed: true },
    "admin",
  );
  await page.goto(`${mock.url}/#/runs/${id}`);
  await page.getByText(/1[5-7]\/25 ended/).waitFor();
}

async function take(picture: Picture): Promise<void> {
  const mock = await startMock({ machines: picture.machines, interval: 5 });
  const browser = await launch(["--force-color-profile=srgb", "--font-render-hinting=none"]);
  try {
    const page = await browser.newPage({
      viewport: { width: picture.width, height: picture.height },
      deviceScaleFactor: picture.scale ?? 1,
      timezoneId: "Europe/Berlin",
    });
    await page.addInitScript((settings) => localStorage.setItem("pistat", JSON.stringify(settings)), {
      theme: picture.theme,
      ...picture.settings,
    });
    await page.goto(`${mock.url}/#login=${CODE}`);
    await page.locator("[data-pi]").first().waitFor();
    if (picture.hash) {
      await page.goto(`${mock.url}/${picture.hash}`);
    } else if (picture.width > 760 && !(picture.settings?.folded as string[] | undefined)?.includes("terminal")) {
      await page.locator(".xterm-rows").getByText("pistat>").first().waitFor();
    }
    await picture.stage?.(page, mock);
    await page.evaluate(() => document.fonts.ready);
    // Counting numbers and sliding bars come to rest.
    await page.waitForTimeout(700);
    await page.screenshot({ path: join(FOLDER, `${picture.name}.png`) });
    console.log(`${picture.name}.png ${picture.width}×${picture.height}`);
  } finally {
    await browser.close();
    await mock.stop();
  }
}

const only = process.argv.slice(2);
await mkdir(FOLDER, { recursive: true });
for (const picture of PICTURES.filter(({ name }) => only.length === 0 || only.includes(name))) {
  await take(picture);
}
