// What every browser test stands on: its own mock controller, a signed-in page, and a watch over
// what a page must never do.

import { test as base, expect, type Page } from "@playwright/test";
import { CODE, type Mock, type ServeOptions, startMock } from "../mock/server";

export interface Stage {
  mock: Mock;
  /** Signs in and waits for the first machines. */
  enter(hash?: string): Promise<void>;
}

interface Options {
  serve: ServeOptions;
}

export const test = base.extend<Options & Stage>({
  serve: [{}, { option: true }],
  mock: async ({ serve }, use) => {
    const mock = await startMock(serve);
    await use(mock);
    await mock.stop();
  },
  page: async ({ page, mock }, use) => {
    const wrong: string[] = [];
    page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
    page.on("console", (message) => {
      // A refused request is part of some tests; a refused style or script never is.
      if (
        message.type() === "error" &&
        !message.text().startsWith("Failed to load resource") &&
        !message.text().includes("WebSocket")
      ) {
        wrong.push(`console: ${message.text()}`);
      }
    });
    page.on("request", (request) => {
      if (!request.url().startsWith("data:") && new URL(request.url()).port !== new URL(mock.url).port)
        wrong.push(`left the origin: ${request.url()}`);
    });
    await page.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", (event) =>
        console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`),
      );
    });
    await use(page);
    expect(wrong).toEqual([]);
  },
  enter: async ({ page, mock }, use) => {
    await use(async (hash) => {
      await page.goto(`${mock.url}/#login=${CODE}`);
      await expect(page).toHaveURL(`${mock.url}/#/`);
      await expect(page.locator("[data-pi]").first()).toBeVisible();
      if (hash) await page.goto(`${mock.url}/${hash}`);
    });
  },
});

export { expect };

/** The terminal: what it shows, and typing into it. */
export function terminal(page: Page) {
  const rows = page.locator(".xterm-rows");
  return {
    rows,
    ready: () => expect(rows).toContainText("pistat>"),
    async type(line: string): Promise<void> {
      await this.ready();
      await page.locator(".terminal-host textarea").focus();
      await page.keyboard.type(line);
    },
    async run(line: string): Promise<void> {
      await this.type(line);
      await page.keyboard.press("Enter");
    },
    paste: (text: string): Promise<void> =>
      page.locator(".terminal-host textarea").evaluate((area, value) => {
        const data = new DataTransfer();
        data.setData("text/plain", value);
        area.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
      }, text),
    shows: (text: string | RegExp) => expect(rows).toContainText(text),
    lacks: (text: string | RegExp) => expect(rows).not.toContainText(text),
  };
}

/** Puts settings into the browser before the page loads. */
export async function remember(page: Page, settings: Record<string, unknown>): Promise<void> {
  await page.addInitScript((value) => {
    if (!sessionStorage.getItem("set")) {
      sessionStorage.setItem("set", "1");
      localStorage.setItem("pistat", JSON.stringify(value));
    }
  }, settings);
}
