// Takes pictures of the real thing: a controller, two agents, tasks that just ran, on a desk and on
// a phone.
//
//   cargo build --release -p pistat -p pistat-agent
//   npm run screenshots:real            into target/pictures
//
// `PISTAT_TEST_PROGRAMS` names another folder of programs, an argument another folder for the
// pictures. Everything is on loopback,
// with ports of its own and a state folder that goes away.

import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Browser, Page } from "@playwright/test";
import type { LoginLink } from "../src/protocol/types";
import { launch } from "../tests/chromium";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");
const PROGRAMS = process.env.PISTAT_TEST_PROGRAMS ?? join(ROOT, "target/release");
const PICTURES = process.argv[2] ?? join(ROOT, "target/pictures");

/** How long anything may take on a busy machine, in milliseconds. */
const DEADLINE_MS = 120_000;

const MACHINES = [
  { id: "pi-1", label: "Rack Pi 1" },
  { id: "pi-2", label: "Attic Cam" },
];

const children: ChildProcess[] = [];

/** Starts a program that ends with this script, and waits until it has said something. */
function start(name: string, words: string[], folder: string, wanted: RegExp): Promise<RegExpExecArray> {
  const child = spawn(join(PROGRAMS, name), words, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  return new Promise((resolve, reject) => {
    let said = "";
    const late = setTimeout(() => reject(new Error(`${name} did not say ${wanted} in time:\n${said}`)), DEADLINE_MS);
    const received = (data: Buffer): void => {
      said += data.toString();
      const found = wanted.exec(said);
      if (found) {
        clearTimeout(late);
        resolve(found);
      }
    };
    child.stdout.on("data", received);
    child.stderr.on("data", received);
    child.on("error", reject);
    child.on("exit", (code) => reject(new Error(`${name} ended with ${code}:\n${said}`)));
  });
}

function stop(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve();
    child.once("exit", () => resolve());
    child.kill("SIGTERM");
  });
}

async function type(page: Page, line: string, answer: string | RegExp): Promise<void> {
  await page.locator(".terminal-host textarea").focus();
  await page.keyboard.type(line);
  await page.keyboard.press("Enter");
  await page.locator(".xterm-rows").getByText(answer).last().waitFor();
}

async function picture(page: Page, name: string): Promise<void> {
  await page.evaluate(() => document.fonts.ready);
  await page.waitForTimeout(900);
  await page.screenshot({ path: join(PICTURES, `${name}.png`) });
  console.log(`${name}.png`);
}

async function desk(browser: Browser, link: string): Promise<void> {
  const page = await browser.newPage({ viewport: { width: 1600, height: 1000 } });
  page.setDefaultTimeout(DEADLINE_MS);
  await page.goto(link);
  for (const { id } of MACHINES) await page.locator(`[data-pi="${id}"]`).filter({ hasText: /\d%/ }).first().waitFor();
  await page.locator(".xterm-rows").getByText("pistat>").first().waitFor();
  await type(page, "task run uptime pi-1", "finished");
  await type(page, 'task assign "Attic Cam" "Camera"', "is responsible for");
  await type(page, "task run disk-usage @all", /finished on \d/);
  await picture(page, "real-desk");
  await page.goto(`${new URL(link).origin}/#/pi/pi-1`);
  await page.getByRole("heading", { name: "Rack Pi 1" }).waitFor();
  await page.waitForTimeout(5_000);
  await picture(page, "real-machine");
  await page.close();
}

async function phone(browser: Browser, url: string, token: string): Promise<void> {
  const page = await browser.newPage({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true });
  page.setDefaultTimeout(DEADLINE_MS);
  await page.goto(url);
  await page.getByLabel("Token or sign-in link").fill(token);
  await page.getByRole("button", { name: "sign in" }).click();
  await page.locator('[data-pi="pi-1"]').filter({ hasText: /\d%/ }).first().waitFor();
  await picture(page, "real-phone");
  await page.getByLabel("Panels").getByRole("button", { name: "logs" }).click();
  await picture(page, "real-phone-logs");
  await page.close();
}

const folder = await mkdtemp(join(tmpdir(), "pistat-pictures-"));
const browser = await launch(["--force-color-profile=srgb", "--font-render-hinting=none"]);
try {
  await mkdir(PICTURES, { recursive: true });
  const state = join(folder, "controller");
  const [, url = ""] = await start(
    "pistat",
    [
      "serve",
      "--http",
      "127.0.0.1:0",
      "--mqtt",
      "127.0.0.1:0",
      "--state",
      state,
      "--tasks",
      join(ROOT, "config/tasks.toml"),
    ],
    folder,
    /dashboard\s+(http:\S+?)\/?\s/,
  );
  const token = (await readFile(join(state, "admin.token"), "utf8")).trim();
  const made = await fetch(`${url}/api/login-links`, { method: "POST", headers: { authorization: `Bearer ${token}` } });
  const { code } = (await made.json()) as LoginLink;
  await Promise.all(
    MACHINES.map(({ id, label }) =>
      start(
        "pistat-agent",
        [
          "--controller-url",
          url,
          "--pi-id",
          id,
          "--label",
          label,
          "--interval",
          "1",
          "--token-file",
          join(state, "join.token"),
          "--state",
          join(folder, id),
        ],
        folder,
        /online|connected|enrolled/i,
      ),
    ),
  );
  await desk(browser, `${url}/#login=${code}`);
  await phone(browser, url, token);
} finally {
  await browser.close();
  await Promise.all(children.reverse().map(stop));
  await rm(folder, { recursive: true, force: true });
}
