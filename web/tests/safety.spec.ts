import { readFileSync } from "node:fs";
import { CONTENT_SECURITY_POLICY } from "../mock/server";
import { expect, terminal, test } from "./fixture";

const ESCAPES =
  "\u001b]0;stolen title\u0007\u001b]52;c;c3RvbGVu\u0007\u001b]8;;http://evil.example\u001b\\\u001b[2J\u001b[5;5H\u009b31m";
const HOSTILE = `<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\u202Egnp.exe${ESCAPES}`;
const TOPIC = `pistat/${HOSTILE}/stats`;

test("the policy is strict and is the one that README names", async ({ page, enter, mock }) => {
  await enter();
  const header = (await page.request.get(mock.url)).headers()["content-security-policy"];
  expect(header).toBe(CONTENT_SECURITY_POLICY);
  expect(header).toContain("default-src 'none'");
  expect(header).toContain("script-src 'self';");
  expect(header).toContain("style-src 'self';");
  expect(header).not.toContain("unsafe");
  expect(header).not.toContain("data:");
  expect(readFileSync("README.md", "utf8")).toContain(header ?? "?");
});

test("the policy stops inline scripts, inline styles and eval", async ({ page, mock }) => {
  // A page of its own: the fixture's watch would take what is provoked here for a fault.
  const context = await page.context().browser()?.newContext();
  const other = await context?.newPage();
  await other?.goto(mock.url);
  const result = await other?.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "window.inline = 1";
    document.body.append(script);
    const style = document.createElement("style");
    style.textContent = "body { outline: 7px solid red }";
    document.body.append(style);
    document.body.setAttribute("style", "outline: 7px solid red");
    return {
      inline: (window as unknown as { inline?: number }).inline,
      outline: getComputedStyle(document.body).outlineWidth,
    };
  });
  expect(result?.inline).toBeUndefined();
  expect(result?.outline).not.toBe("7px");
  await context?.close();
});

test("hostile labels, responsibilities, topics and events are shown as text in every view", async ({
  page,
  enter,
  mock,
}) => {
  const machine = mock.controller.machines.get("pi-1")?.machine;
  if (machine) {
    machine.label = HOSTILE;
    machine.assignment = HOSTILE;
    machine.info = { ...machine.info!, os: HOSTILE, model: HOSTILE };
  }
  mock.controller.event("mqtt", "error", HOSTILE, { pi: "pi-1", account: HOSTILE });
  mock.controller.event("mqtt", "error", `dropped a message on ${TOPIC}`, { account: HOSTILE });
  const { runs } = mock.controller.request({ task: "uptime", target: "pi-1", args: {}, confirmed: false }, HOSTILE);
  await enter();
  await expect(page.locator('[data-pi="pi-1"]')).toContainText("<img src=x onerror");
  await expect(page.locator('[data-pi="pi-1"]')).toContainText("⟨202E⟩gnp.exe⟨1B⟩]0;stolen title⟨07⟩");
  const events = page.getByRole("list", { name: "Events" });
  await expect(events).toContainText("dropped a message on pistat/<img");
  await expect(events).toContainText("⟨1B⟩[2J⟨1B⟩[5;5H⟨9B⟩31m/stats");
  for (const density of ["table", "wall", "cards"]) {
    await page.getByRole("button", { name: density }).click();
    await expect(page.locator('[data-pi="pi-1"]')).toBeVisible();
  }
  for (const hash of ["#/pi/pi-1", "#/runs", `#/runs/${runs[0]}`, `#/pi/${encodeURIComponent(HOSTILE)}`]) {
    await page.goto(`${mock.url}/${hash}`);
    await expect(page.getByText("onerror").filter({ visible: true }).first()).toBeVisible();
  }
  await page.keyboard.press("Control+k");
  await expect(page.getByRole("option").filter({ hasText: "onerror" }).first()).toBeAttached();
  expect(await page.evaluate(() => (window as unknown as { hacked?: number }).hacked)).toBeUndefined();
  expect(await page.locator("img").count()).toBe(0);
  await expect(page).not.toHaveTitle(/stolen/);
});

test("hostile labels and names move nothing in the terminal", async ({ page, enter, mock }) => {
  const hostile = `Nest${ESCAPES}\r\nEVIL\u202e`;
  const machine = mock.controller.machines.get("pi-1")?.machine;
  if (machine) machine.label = hostile;
  await enter();
  const shell = terminal(page);
  await shell.run("pis");
  await shell.shows("Barn");
  await page.keyboard.type("task run uptime pi-1\n");
  const shown =
    "Nest⟨1B⟩]0;stolen title⟨07⟩⟨1B⟩]52;c;c3RvbGVu⟨07⟩⟨1B⟩]8;;http://evil.example⟨1B⟩\\⟨1B⟩[2J⟨1B⟩[5;5H⟨9B⟩31mEVIL⟨202E⟩";
  const text = async (): Promise<string> => (await shell.rows.innerText()).replace(/[\s\u00a0]/g, "");
  await expect.poll(text).toContain(`┌uptime·${shown}·run`.replace(/\s/g, ""));
  await shell.shows("finished exit 0");
  mock.controller.request({ task: "uptime", target: "pi-1", args: {}, confirmed: false }, hostile);
  await expect.poll(text).toContain(`·startedby${shown}│21:04:12`.replace(/\s/g, ""));
  await expect(shell.rows).toContainText(/38 ms[^›]*38 ms\s*pistat>\s*$/);
  await page.keyboard.type("assign name Ne");
  await page.keyboard.press("Tab");
  await expect
    .poll(text)
    .toContain('pistat>assignname"Nest]0;stolentitle]52;c;c3RvbGVu]8;;http://evil.example\\[2J[5;5H31mEVIL"');
  await shell.shows("Barn");
  await expect(page).not.toHaveTitle(/stolen/);
});

test("hostile output is text: colours pass, everything else does not", async ({ page, enter, mock }) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task run count pi-1 lines=100");
  await shell.shows("line 1 of 100");
  const run = [...mock.controller.runs.values()].pop();
  const id = run?.id ?? "";
  mock.controller.print(
    id,
    "\u001b]0;stolen title\u0007\u001b]52;c;c3RvbGVu\u0007\u001b]8;;http://evil.example\u001b\\click\u001b]8;;\u001b\\ \u001b[31mred\u001b[0m \u001b[2J\u001b[H\u001b[?1049h\u001b[6n<b onclick=x>bold</b> \u202Eexe.txt\n",
  );
  await shell.shows("click red <b onclick=x>bold</b> ⟨202E⟩exe.txt");
  await shell.shows("┌ count · Rack Pi 1");
  await expect(page).not.toHaveTitle(/stolen/);
  await page.goto(`${mock.url}/#/runs/${id}`);
  const output = page.getByRole("list", { name: "Output" });
  await expect(output).toContainText("click red <b onclick=x>bold</b> ⟨202E⟩exe.txt");
  await expect(output.locator(".fg-1").filter({ hasText: "red" })).toBeVisible();
  expect(await output.locator("a, b, img").count()).toBe(0);
});

test("colours beyond sixteen are drawn without inline styles", async ({ page, enter, mock }) => {
  await enter();
  const shell = terminal(page);
  await shell.run("task run count pi-1 lines=100");
  await shell.shows("line 1 of 100");
  const id = [...mock.controller.runs.values()].pop()?.id ?? "";
  mock.controller.print(id, "\u001b[38;2;255;100;0mtruecolour\u001b[0m \u001b[48;5;19;38;5;226mpalette\u001b[0m\n");
  await shell.shows("truecolour palette");
  const colour = await page
    .locator(".xterm-rows span", { hasText: "truecolour" })
    .first()
    .evaluate((node) => getComputedStyle(node).color);
  expect(colour).toBe("rgb(255, 100, 0)");
});

test("a gap in the output is marked", async ({ page, enter, mock }) => {
  await enter();
  const { runs } = mock.controller.request(
    { task: "count", target: "pi-1", args: { lines: 100 }, confirmed: false },
    "admin",
  );
  await page.goto(`${mock.url}/#/runs/${runs[0]}`);
  await expect(page.getByText("line 2", { exact: false }).first()).toBeVisible();
  mock.controller.print(runs[0] ?? "", "after the gap\n", "stdout", 2100);
  await expect(page.getByText("… 2.1 KiB of output missing here …")).toBeVisible();
});
