import type { Page } from "@playwright/test";
import { expect, terminal, test } from "./fixture";

/** The middle of a text in the terminal, in the page's coordinates. */
async function middle(page: Page, text: string): Promise<{ x: number; y: number }> {
  await terminal(page).shows(text);
  return page.locator(".xterm-rows").evaluate((rows, sought) => {
    for (const row of rows.children) {
      const at = row.textContent?.indexOf(sought) ?? -1;
      if (at < 0) continue;
      const { left, width, top, height } = row.getBoundingClientRect();
      const cell =
        Number(document.querySelector(".xterm-rows span")?.getBoundingClientRect().width) /
        Number(document.querySelector(".xterm-rows span")?.textContent?.length);
      return { x: left + Math.min(width, cell * (at + sought.length / 2)), y: top + height / 2 };
    }
    throw new Error(`no row has ${sought}`);
  }, text);
}

/**
 * Listens from now on, and says afterwards what was copied: a key may be there before a script that
 * was sent earlier.
 */
async function copying(page: Page): Promise<() => Promise<string>> {
  const copied = await page.evaluateHandle(() => {
    const found: string[] = [];
    document.addEventListener("copy", () =>
      found.push((document.activeElement as HTMLTextAreaElement).value || String(document.getSelection())),
    );
    return found;
  });
  return async () => {
    await expect.poll(() => copied.evaluate((found) => found.length)).toBe(1);
    return copied.evaluate((found) => found[0] ?? "");
  };
}

test("the catalogue is listed", async ({ page, enter }) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task list");
  await shell.shows("Show how long the machine has been running");
  await shell.shows("8 tasks");
});

test("a run shows its task, machine, output, exit code and time", async ({ page, enter }) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task run uptime pi-1");
  await shell.shows(/┌ uptime · Rack Pi 1 · run/);
  await shell.shows(/│ {2}21:04:12 up 41 days/);
  await shell.shows("└ ✔ finished exit 0 · 38 ms");
});

test("output comes while the task runs", async ({ page, enter, mock }) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task run count pi-1 lines=100");
  await shell.shows("line 3 of 100");
  const run = [...mock.controller.runs.values()].find((each) => each.task === "count");
  expect(run?.state).toBe("running");
});

test("a hundred thousand lines come through, and the prompt comes back", async ({ page, enter }) => {
  test.slow();
  await enter();
  const shell = terminal(page);
  await shell.run("task run count pi-1 lines=100000");
  await expect(shell.rows).toContainText("finished exit 0", { timeout: 40_000 });
  await shell.run("pis");
  await shell.shows("Barn");
});

test("a task that asks is asked about, and no is no", async ({ page, enter, mock }) => {
  await enter();
  const shell = terminal(page);
  const before = mock.controller.runs.size;
  await shell.run("task run reboot pi-1");
  await shell.shows("? Run reboot on Rack Pi 1? [y/N]");
  await page.keyboard.type("n\n");
  await shell.shows("not run");
  expect(mock.controller.runs.size).toBe(before);
});

test("a run on all machines shows one bar and what went wrong, and follows no more runs than it may", async ({
  page,
  enter,
  mock,
}) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task run apt-upgrade @all");
  await shell.shows("on 25 machines?");
  await page.keyboard.type("y\n");
  await shell.shows("┌ apt-upgrade · 25 machines");
  await shell.shows(/Attic Cam\s+E: dpkg was interrupted/);
  await shell.shows(/1[67]\/25 {2}1[56] ✔ 1 ✖/);
  expect(mock.controller.unfollowed).toBe(0);
});

test("a machine that failed before it was listened to still shows its line", async ({ page, enter, mock }) => {
  // The last of more than a page may follow.
  for (const [id, { machine }] of mock.controller.machines) {
    if (machine.label === "Attic Cam") machine.label = "Attic";
    if (id === "pi-24") machine.label = "Attic Cam";
    if (machine.status === "offline") machine.status = "online";
  }
  await enter();
  const shell = terminal(page);
  await shell.run("task run apt-upgrade @all");
  await shell.shows("on 25 machines?");
  await page.keyboard.type("y\n");
  await shell.shows(/Attic Cam\s+E: dpkg was interrupted/);
  expect(mock.controller.unfollowed).toBe(0);
});

test("a run that is not followed any more says so, and how it ended all the same", async ({ page, enter, mock }) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task run count pi-1 lines=12");
  await shell.shows("line 2 of 12");
  const run = [...mock.controller.runs.values()].pop()?.id ?? "";
  for (const subscriber of mock.controller.subscribers)
    subscriber.send({ type: "unfollowed", run, reason: "the register cannot be read" });
  await shell.shows("not followed any more: the register cannot be read");
  await shell.shows("└ ✔ finished exit 0");
});

test("Ctrl-C looks away from a run, and a second one cancels it", async ({ page, enter, mock }) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task run count pi-1 lines=150");
  await shell.shows("line 2 of 150");
  await page.keyboard.press("Control+c");
  await shell.shows("Cancel it too? [y/N]");
  await page.keyboard.press("Control+c");
  await shell.shows("✔ cancelling");
  await expect
    .poll(() => [...mock.controller.runs.values()].find((run) => run.task === "count")?.state)
    .toBe("cancelled");
  await page.keyboard.type("pis");
  await page.keyboard.press("Enter");
  await shell.shows("Roof Mast");
});

test("what is typed and pasted while a run is watched waits for the prompt whole, and Ctrl-C takes it back", async ({
  page,
  enter,
}) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task run count pi-1 lines=12");
  await shell.shows("line 2 of 12");
  await page.keyboard.type("tsk ");
  for (let step = 0; step < 3; step += 1) await page.keyboard.press("ArrowLeft");
  await page.keyboard.type("a");
  await page.keyboard.press("End");
  await shell.paste("list");
  await shell.shows(/finished exit 0[\s\S]*pistat> task list/);
  await page.keyboard.press("Enter");
  await shell.shows("8 tasks");
  await page.keyboard.type("task run count pi-1 lines=100");
  await page.keyboard.press("Enter");
  await shell.shows("line 2 of 100");
  await page.keyboard.type("taken back");
  await page.keyboard.press("Control+c");
  await shell.shows("Cancel it too? [y/N]");
  await page.keyboard.type("n\n");
  await expect(shell.rows).toContainText(/\[y\/N\] n\s*pistat>\s*$/);
  await page.keyboard.type("theme");
  await expect(shell.rows).toContainText(/pistat> theme\s*$/);
});

test("Ctrl-C and no leaves the run running", async ({ page, enter, mock }) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task run count pi-1 lines=150");
  await shell.shows("line 2 of 150");
  await page.keyboard.press("Control+c");
  await shell.shows("Cancel it too? [y/N]");
  await page.keyboard.type("n\n");
  await expect(shell.rows).toContainText(/\[y\/N\] n\s*pistat>/);
  expect([...mock.controller.runs.values()].find((run) => run.task === "count")?.state).toBe("running");
});

test("Tab completes commands, tasks, machines and labels", async ({ page, enter }) => {
  await enter();
  const shell = terminal(page);
  await shell.type("ta");
  await page.keyboard.press("Tab");
  await shell.shows(/pistat> ta\s+task\s+tag/);
  await page.keyboard.type("sk r");
  await page.keyboard.press("Tab");
  await shell.shows(/pistat> task run (?!u)/);
  await page.keyboard.type("upt");
  await page.keyboard.press("Tab");
  await shell.shows("pistat> task run uptime");
  await page.keyboard.type("zero");
  await page.keyboard.press("Tab");
  await expect(shell.rows).toContainText("pistat> task run uptime zero-1");
  await page.keyboard.press("Control+u");
  await page.keyboard.type("assign name Att");
  await page.keyboard.press("Tab");
  await expect(shell.rows).toContainText('pistat> assign name "Attic Cam"');
});

test("Tab completes arguments and their values, and says how many candidates it leaves out", async ({
  page,
  enter,
  mock,
}) => {
  for (let number = 100; number < 160; number += 1) mock.controller.join(`bird-${number}`, `Nest ${number}`);
  await enter();
  const shell = terminal(page);
  await shell.type("task run service-log pi-1 u");
  await page.keyboard.press("Tab");
  await shell.shows("pi-1 unit=");
  // No space after the sign: the value goes on there.
  await page.keyboard.press("Tab");
  await shell.shows(/unit=\s+unit=ssh\s+unit=cron\s+pistat> task run service-log pi-1 unit=/);
  await page.keyboard.type("s");
  await page.keyboard.press("Tab");
  await shell.shows("pi-1 unit=ssh");
  await page.keyboard.press("Tab");
  await shell.shows("pi-1 unit=ssh lines=");
  await page.keyboard.press("Tab");
  await shell.shows("pi-1 unit=ssh lines=100");
  await page.keyboard.press("Enter");
  await shell.shows("Server listening on 0.0.0.0 port 22.");
  await page.keyboard.type("task run ping pi-1 verbose=t");
  await page.keyboard.press("Tab");
  await shell.shows("verbose=true");
  await page.keyboard.press("Control+u");
  await page.keyboard.type("runs bird-1");
  await page.keyboard.press("Tab");
  await shell.shows("… and at least 10 more");
  await page.keyboard.type("0");
  await page.keyboard.press("Tab");
  await expect(shell.rows).toContainText(/bird-109[^…]*pistat> runs bird-10\s*$/);
});

test("Ctrl-C at the prompt takes back the line, and a command that is with the controller is left", async ({
  page,
  enter,
  mock,
}) => {
  await enter();
  const shell = terminal(page);
  await shell.type("half a li");
  await page.keyboard.press("Control+c");
  await shell.shows(/half a li\^C\s*pistat>\s*$/);
  let answer: () => void = () => undefined;
  mock.controller.answering = new Promise((resolve) => (answer = resolve));
  await shell.run("task list");
  await page.keyboard.type("typed ahead");
  await page.keyboard.press("Control+c");
  await shell.shows(/pistat> task list\s*\^C\s*pistat>\s*$/);
  answer();
  mock.controller.answering = Promise.resolve();
  await shell.run("pis");
  await shell.shows("Barn");
  await shell.lacks("8 tasks");
});

test("a link in what is shown opens elsewhere when it is clicked, and knows nothing of this page", async ({
  page,
  enter,
  mock,
}) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task run count pi-1 lines=100");
  await shell.shows("line 1 of 100");
  const id = [...mock.controller.runs.values()].pop()?.id ?? "";
  const address = `${mock.url}/manifest.webmanifest`;
  mock.controller.print(id, `see ${address} there\n`);
  // What scrolls would move away from below the pointer.
  mock.controller.cancel(id);
  await shell.shows("✖ cancelled");
  const { x, y } = await middle(page, address);
  await page.mouse.move(x - 4, y);
  await page.mouse.move(x, y);
  await expect(page.locator(".xterm-screen")).toHaveCSS("cursor", "pointer");
  const [opened] = await Promise.all([page.context().waitForEvent("page"), page.mouse.click(x, y)]);
  await expect(opened).toHaveURL(address);
  expect(await opened.evaluate(() => window.opener === null)).toBe(true);
});

for (const keys of ["Control+c", "Control+Shift+c"]) {
  test(`${keys} copies what is selected, also over plain http`, async ({ page, mock }) => {
    await page.goto(`${mock.url.replace("127.0.0.1", "pi.lan")}/#login=mock-code`);
    expect(await page.evaluate(() => window.isSecureContext)).toBe(false);
    const shell = terminal(page);
    await shell.run("task list");
    await shell.shows("8 tasks");
    await page.keyboard.type("half");
    const { x, y } = await middle(page, "disk-usage");
    await page.mouse.dblclick(x, y);
    await expect(page.locator(".xterm-selection div").first()).toBeAttached();
    const copied = await copying(page);
    await page.keyboard.press(keys);
    expect(await copied()).toBe("disk-usage");
    await expect(page.locator(".xterm-selection div")).toHaveCount(0);
    await page.keyboard.type(" a line");
    await shell.shows(/pistat> half a line\s*$/);
  });
}

test("Ctrl-F searches the terminal", async ({ page, enter }) => {
  await enter();
  await terminal(page).type("half");
  await page.keyboard.press("Control+f");
  await expect(page.getByLabel("Search the terminal")).toBeFocused();
  await page.keyboard.press("Escape");
  await page.keyboard.type(" a line");
  await terminal(page).shows("pistat> half a line");
});

test("a long line stands once after the terminal was narrowed and widened, and goes on", async ({ page, enter }) => {
  await enter();
  const shell = terminal(page);
  const line = `help ${"abcdefghi ".repeat(14)}end`;
  await shell.type(line);
  for (const width of [1100, 1600, 900, 1300, 1600]) {
    await page.setViewportSize({ width, height: 1000 });
    const columns = page.locator(".xterm-rows > div").first();
    await expect(columns).toBeAttached();
    // The terminal follows the width a moment later, and draws the line anew.
    const shown = async () => {
      const text = (await shell.rows.innerText()).replace(/[\s\u00a0]+/g, "");
      return { prompts: text.split("pistat>").length - 1, end: text.slice(text.lastIndexOf("pistat>")) };
    };
    await expect.poll(shown, `${width}`).toEqual({ prompts: 1, end: `pistat>${line.replaceAll(" ", "")}` });
  }
  await page.keyboard.press("Home");
  await page.keyboard.type("no");
  await page.keyboard.press("Enter");
  await shell.shows('✖ there is no command "nohelp"');
});

test("the arrow keys bring back earlier lines, also after a reload", async ({ page, enter }) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task list");
  await shell.shows("8 tasks");
  await page.reload();
  await shell.ready();
  await page.locator(".terminal-host textarea").focus();
  await page.keyboard.press("ArrowUp");
  await shell.shows("pistat> task list");
});

test("a paste of several lines is asked about first", async ({ page, enter }) => {
  await enter();
  const shell = terminal(page);
  await shell.type("half a li");
  await shell.paste("task list\nreboot everything\n");
  await shell.shows("Run these 2 lines one after another? [y/N]");
  await page.keyboard.type("n\n");
  await shell.shows(/\[y\/N\] n\s*pistat> half a li/);
  await page.keyboard.press("Control+u");
  await shell.paste("theme amber\ntheme paper");
  await shell.shows("Run these 2 lines");
  await page.keyboard.type("y\n");
  await shell.shows("✔ theme paper");
  await expect(page.locator("html")).toHaveAttribute("data-theme", "paper");
  await shell.paste("one line only");
  await shell.shows("pistat> one line only");
});

test("what is pasted is plain before it is shown, runs and is remembered", async ({ page, enter }) => {
  await enter();
  const shell = terminal(page);
  await shell.type("");
  const text = "theme amber\u001b[5;5HEVIL\u202e\u200b\r\n\u001b\r\npis\u009b2J";
  await shell.paste(text);
  await shell.shows("Run these 2 lines");
  await shell.shows(/ {2}theme amber\[5;5HEVIL\s* {2}pis2J\? Run/);
  await page.keyboard.type("y\n");
  await shell.shows(/pistat> theme amber\[5;5HEVIL[\s\S]*✖ there is no command "pis2J"/);
  const kept = await page.evaluate(() => localStorage.getItem("pistat.history"));
  expect(JSON.parse(kept ?? "[]")).toEqual(["theme amber[5;5HEVIL", "pis2J"]);
});

for (const { given, ran } of [
  { given: "yes\n", ran: true },
  { given: "Y\n", ran: true },
  { given: "no\n", ran: false },
  { given: "\n", ran: false },
  { given: "es\n", ran: false },
]) {
  test(`a question takes a whole line: ${JSON.stringify(given)} is ${ran ? "yes" : "no"}, typed or pasted, and no command`, async ({
    page,
    enter,
    mock,
  }) => {
    await enter();
    const shell = terminal(page);
    for (const paste of [false, true]) {
      const before = mock.controller.runs.size;
      await shell.run("task run reboot pi-1");
      await expect(shell.rows).toContainText(/\[y\/N\]\s*$/);
      if (!paste) await page.keyboard.type(given);
      else await shell.paste(given === "\n" ? "n\n" : `${given}pis\n`);
      await expect(shell.rows).toContainText(ran ? /finished exit 0[^>]*pistat>\s*$/ : /not run\s*pistat>\s*$/);
      expect(mock.controller.runs.size).toBe(before + (ran ? 1 : 0));
      await shell.lacks("there is no command");
      await shell.lacks("Attic");
      await page.keyboard.press("Control+l");
    }
  });
}

test("an answer can be mended, and what was typed before its question is none and no command", async ({
  page,
  enter,
  mock,
}) => {
  await enter();
  const shell = terminal(page);
  const before = mock.controller.runs.size;
  await shell.type("");
  // In one go, so that the question comes after its answer.
  await page.keyboard.insertText("task run reboot pi-1");
  await page.locator(".terminal-host textarea").evaluate((area) => {
    for (const [key, code] of [
      ["Enter", 13],
      ["y", 89],
      ["Enter", 13],
    ] as const)
      area.dispatchEvent(new KeyboardEvent("keydown", { key, keyCode: code, bubbles: true, cancelable: true }));
  });
  await expect(shell.rows).toContainText(/\[y\/N\]\s*$/);
  await page.keyboard.type("y");
  await page.keyboard.press("Backspace");
  await page.keyboard.type("no\n");
  await expect(shell.rows).toContainText(/\[y\/N\] no\s*not run\s*pistat>\s*$/);
  expect(mock.controller.runs.size).toBe(before);
});

test("a refusal says what is wrong and what to do", async ({ page, enter }) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task run uptime nowhere");
  await shell.shows("✖ There is no machine nowhere. The machines are listed by `pis`.");
  await shell.run("sudo rm -rf /");
  await shell.shows('✖ there is no command "sudo"');
  await shell.run("task run uptime pi-15");
  await shell.shows("✖ uptime cannot run on pi-15: its agent was started with --register-only");
});

test("long lines wrap and can be edited at their beginning", async ({ page, enter }) => {
  await enter();
  const shell = terminal(page);
  await shell.type(`help ${"x".repeat(180)}`);
  await page.keyboard.press("Home");
  await page.keyboard.type("no");
  await page.keyboard.press("End");
  await page.keyboard.press("Enter");
  await shell.shows('✖ there is no command "nohelp"');
  await expect(shell.rows).toContainText(/pistat> nohelp x+/);
});

test("clear empties it and the search finds what scrolled away", async ({ page, enter }) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task list");
  await shell.shows("8 tasks");
  await page.getByRole("button", { name: "search", exact: true }).click();
  await page.getByLabel("Search the terminal").fill("disk-usage");
  await expect(page.locator(".xterm-selection div").first()).toBeAttached();
  await page.getByLabel("Search the terminal").fill("not there");
  await expect(page.getByLabel("Search the terminal")).toHaveAttribute("aria-invalid", "true");
  await page.keyboard.press("Escape");
  await page.locator(".terminal-host textarea").focus();
  await page.keyboard.type("clear");
  await page.keyboard.press("Enter");
  await shell.lacks("8 tasks");
});

test("without a link the line stays and says why", async ({ page, enter, mock }) => {
  await enter();
  const shell = terminal(page);
  await shell.type("task list");
  mock.refuse(true);
  await expect(page.getByText("link down")).toBeVisible();
  await page.keyboard.press("Enter");
  await shell.shows("Not connected");
  await expect(shell.rows).toContainText(/pistat> task list\s*$/);
  mock.refuse(false);
  await expect(page.getByText("link down")).toHaveCount(0, { timeout: 15_000 });
  await page.keyboard.press("Enter");
  await shell.shows("8 tasks");
});

test("a followed run goes on where it stopped after a lost link", async ({ page, enter, mock }) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task run count pi-1 lines=30");
  await shell.shows("line 3 of 30");
  mock.cut();
  await shell.shows("└ ✔ finished exit 0");
  const text = (await shell.rows.innerText()).replace(/\u00a0/g, " ");
  const lines = [...text.matchAll(/line (\d+) of 30/g)].map((match) => Number(match[1]));
  expect(lines).toEqual(Array.from({ length: 30 }, (_, index) => index + 1));
});

test.describe("runs that were started elsewhere", () => {
  test("are shown above what is being typed, with who started them", async ({ page, enter, mock }) => {
    await enter();
    const shell = terminal(page);
    await shell.type("half a li");
    mock.controller.request({ task: "uptime", target: "pi-1", args: {}, confirmed: false }, "home-assistant");
    await shell.shows(/┌ uptime · Rack Pi 1 · run \S+ · started by home-assistant/);
    await shell.shows("load average: 0.31");
    await shell.shows(/└ ✔ finished exit 0 · 38 ms\s*pistat> half a li/);
    await page.keyboard.type("ne");
    await shell.shows(/pistat> half a line/);
    expect((await shell.rows.innerText()).match(/┌ uptime/g)).toHaveLength(1);
  });

  test("are told apart by their machines while several print", async ({ page, enter, mock }) => {
    await enter();
    const shell = terminal(page);
    await shell.ready();
    for (const target of ["pi-1", "pi-2"])
      mock.controller.request({ task: "count", target, args: { lines: 12 }, confirmed: false }, "schedule");
    await shell.shows(/│ Rack Pi 1 {2}line 8 of 12/);
    await shell.shows(/│ Rack Pi 2 {2}line 8 of 12/);
    await shell.shows(/✔ finished exit 0[\s\S]*✔ finished exit 0/);
  });

  test("and wait for their machines are one line, until they begin", async ({ page, enter, mock }) => {
    await enter();
    const shell = terminal(page);
    await shell.ready();
    for (let run = 0; run < 6; run += 1)
      mock.controller.request({ task: "uptime", target: "pi-12", args: {}, confirmed: false }, "schedule");
    await shell.shows("· uptime waits for Gate · started by schedule");
    mock.controller.request({ task: "uptime", target: "pi-1", args: {}, confirmed: false }, "home-assistant");
    await shell.shows(/┌ uptime · Rack Pi 1/);
    await shell.lacks("┌ uptime · Gate");
    const waiting = [...mock.controller.runs.values()].find((run) => run.pi === "pi-12");
    mock.controller.push({ kind: "run", run: { ...waiting!, state: "running", started_at: new Date().toISOString() } });
    await shell.shows(/┌ uptime · Gate/);
  });

  test("are not shown twice when the terminal started them itself", async ({ page, enter }) => {
    await enter();
    const shell = terminal(page);
    await shell.run("task run uptime pi-1");
    await shell.shows("finished exit 0");
    // Longer than it takes to be shown as another client's.
    await page.waitForTimeout(900);
    expect((await shell.rows.innerText()).match(/┌ uptime/g)).toHaveLength(1);
  });
});

test("copying works without a secure context", async ({ page, mock }) => {
  const lan = mock.url.replace("127.0.0.1", "pi.lan");
  await page.goto(`${lan}/#login=mock-code`);
  expect(await page.evaluate(() => window.isSecureContext)).toBe(false);
  await page.getByRole("button", { name: "Add a Pi" }).click();
  const copied = await copying(page);
  await page.getByRole("dialog").getByRole("button", { name: "copy" }).click();
  await expect(page.getByRole("dialog").getByRole("button", { name: "copied" })).toBeVisible();
  expect(await copied()).toContain(`--controller-url ${lan} --pi-id`);
});

test.describe("on a phone", () => {
  // As wide as a phone, and high enough for everything at once.
  test.use({ viewport: { width: 360, height: 1600 }, hasTouch: true });
  test("tables and notices break between words", async ({ page, enter, mock }) => {
    await enter();
    await page.getByLabel("Panels").getByRole("button", { name: "terminal" }).click();
    const shell = terminal(page);
    await shell.run("task list");
    await shell.shows("8 tasks");
    mock.controller.request({ task: "uptime", target: "@rack", args: {}, confirmed: false }, "home-assistant");
    await shell.shows("uptime on many machines");
    const rows = (await page.locator(".xterm-rows > div").allInnerTexts()).map((row) =>
      row.replaceAll("\u00a0", " ").trimEnd(),
    );
    const at = (start: string) => rows.findIndex((row) => row.startsWith(start));
    const found = rows.slice(at("uptime"), at("disk-usage"));
    expect(found.length).toBeGreaterThan(1);
    expect(
      found
        .slice(1)
        .map((row) => row.trim())
        .join(" "),
    ).toBe("Show how long the machine has been running");
    for (const row of found.slice(1)) expect(row).toMatch(/^ {2}\S/);
    const notice = rows.slice(at("┌ uptime on many"));
    expect(
      notice
        .slice(0, notice.indexOf(""))
        .map((row) => row.trim())
        .join(" "),
    ).toBe("┌ uptime on many machines · started by home-assistant · its progress is under runs");
  });
});

test("the cursor stands right behind pictures and wide letters that were typed", async ({ page, enter }) => {
  await enter();
  const shell = terminal(page);
  await shell.type("");
  for (const text of ["👩‍💻", "⚠️🍓", "漢字", "1️⃣x", "🏴󠁧󠁢󠁥󠁮󠁧󠁿🇩🇪"]) {
    await shell.paste(text);
    await page.keyboard.type("|");
    const row = shell.rows.locator("div").filter({ hasText: `pistat> ${text}|` });
    await expect(row.locator(".xterm-cursor")).toBeVisible();
    // A measure of ours that is not the terminal's leaves blanks there, or puts the cursor onto the
    // text.
    expect(
      await row.evaluate((node) => node.querySelector(".xterm-cursor")?.previousSibling?.textContent ?? ""),
    ).toMatch(/\|$/);
    await page.keyboard.press("Control+u");
  }
});
