import { expect, terminal, test } from "./fixture";

test("a sign-in link signs in and its code leaves the address", async ({ page, enter, mock }) => {
  await enter();
  await expect(page).toHaveURL(`${mock.url}/#/`);
  await expect(page.getByRole("heading", { name: "Stats" })).toBeVisible();
});

test("a used link says so, and a token signs in instead", async ({ page, mock }) => {
  await page.goto(`${mock.url}/#login=used-up`);
  await expect(page.getByRole("dialog").getByRole("alert")).toContainText("This sign-in link was used or is too old");
  await page.getByLabel("Token or sign-in link").fill("wrong");
  await page.getByRole("button", { name: "sign in" }).click();
  await expect(page.getByRole("alert")).toHaveText("This token is not known here.");
  await page.getByLabel("Token or sign-in link").fill("admin-token");
  await page.getByRole("button", { name: "sign in" }).click();
  await expect(page.locator("[data-pi]").first()).toBeVisible();
});

test("a sign-in link that is pasted into an open tab signs in there, and leaves no code behind", async ({
  page,
  mock,
}) => {
  await page.goto(mock.url);
  await page.getByLabel("Token or sign-in link").fill("viewer-token");
  await page.getByRole("button", { name: "sign in" }).click();
  await expect(page.locator('[data-pi="pi-1"]')).toBeVisible();
  await page.goto(`${mock.url}/#/runs`);
  await page.goto(`${mock.url}/#login=mock-code`);
  await expect(page).toHaveURL(`${mock.url}/#/`);
  await expect(page.getByRole("button", { name: "Add a Pi" })).toBeVisible();
  await page.goBack();
  await expect(page).toHaveURL(`${mock.url}/#/runs`);
  mock.expire();
  await expect(page.getByText("The session ended.")).toBeVisible();
  await page.goto(`${mock.url}/#login=mock-code`);
  await expect(page.getByText("The session ended.")).toHaveCount(0);
});

test("a pasted sign-in link is as good as a token", async ({ page, mock }) => {
  await page.goto(mock.url);
  await page.getByLabel("Token or sign-in link").fill(`${mock.url}/#login=mock-code`);
  await page.getByRole("button", { name: "sign in" }).click();
  await expect(page.locator("[data-pi]").first()).toBeVisible();
});

test("a viewer sees everything and is offered nothing to change", async ({ page, mock }) => {
  await page.goto(mock.url);
  await page.getByLabel("Token or sign-in link").fill("viewer-token");
  await page.getByRole("button", { name: "sign in" }).click();
  await expect(page.locator('[data-pi="pi-1"]')).toBeVisible();
  await expect(page.getByRole("button", { name: "Add a Pi" })).toHaveCount(0);
  await page.goto(`${mock.url}/#/pi/pi-1`);
  await expect(page.getByRole("heading", { name: "Rack Pi 1" })).toBeVisible();
  await expect(page.getByRole("heading", { name: "Tasks" })).toHaveCount(0);
  await expect(page.getByRole("button", { name: "edit" })).toHaveCount(0);
});

test("an expired session asks again and what was typed is still there", async ({ page, enter, mock }) => {
  await enter();
  const shell = terminal(page);
  await shell.type("task run uptime pi-1");
  mock.expire();
  await expect(page.getByText("The session ended.")).toBeVisible();
  await page.getByLabel("Token or sign-in link").fill("admin-token");
  await page.getByRole("button", { name: "sign in" }).click();
  await expect(page.getByText("The session ended.")).toHaveCount(0);
  await shell.shows("pistat> task run uptime pi-1");
  await page.locator(".terminal-host textarea").focus();
  await page.keyboard.press("Enter");
  await shell.shows("finished exit 0");
});

test("a session that is begun in another tab is taken up by the one that waits, with what was typed", async ({
  page,
  enter,
  mock,
}) => {
  await enter();
  const shell = terminal(page);
  await shell.type("task run uptime pi-1");
  mock.expire();
  await expect(page.getByText("The session ended.")).toBeVisible();
  const other = await page.context().newPage();
  await other.goto(`${mock.url}/#login=mock-code`);
  await expect(other.locator('[data-pi="pi-1"]')).toBeVisible();
  await expect(page.getByText("The session ended.")).toHaveCount(0);
  await expect(page.getByText("link down")).toHaveCount(0);
  mock.expire();
  await expect(page.getByText("The session ended.")).toBeVisible();
  await other.getByLabel("Token or sign-in link").fill("admin-token");
  await other.getByRole("button", { name: "sign in" }).click();
  await expect(page.getByText("The session ended.")).toHaveCount(0);
  await shell.shows("pistat> task run uptime pi-1");
  await page.locator(".terminal-host textarea").focus();
  await page.keyboard.press("Enter");
  await shell.shows("finished exit 0");
});

test("a tab that is looked at again takes up a session that was begun meanwhile", async ({ page, enter, mock }) => {
  await enter();
  mock.expire();
  await expect(page.getByText("The session ended.")).toBeVisible();
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  await expect(page.getByText("The session ended.")).toBeVisible();
  const answer = await page.request.post(`${mock.url}/api/login`, { data: { code: "mock-code" } });
  // As another tab would, though this one was not told.
  await page.evaluate(
    (key) => localStorage.setItem("pistat.session /", key),
    ((await answer.json()) as { session_key: string }).session_key,
  );
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  await expect(page.getByText("The session ended.")).toHaveCount(0);
  mock.controller.setOffline("pi-1", true);
  await expect(page.locator('[data-pi="pi-1"]')).toContainText("offline");
});

test("an expired session takes nothing that was typed into forms", async ({ page, enter, mock }) => {
  await enter("#/pi/pi-4");
  const again = async (): Promise<void> => {
    mock.expire();
    await expect(page.getByText("The session ended.")).toBeVisible();
    await page.getByLabel("Token or sign-in link").fill("admin-token");
    await page.getByRole("button", { name: "sign in" }).click();
    await expect(page.getByText("The session ended.")).toHaveCount(0);
    await expect(page.getByText("link down")).toHaveCount(0);
  };
  await page.getByRole("button", { name: "Service log" }).click();
  await page.getByLabel("unit", { exact: true }).selectOption("cron");
  await page.getByLabel("lines", { exact: true }).fill("77");
  await again();
  await expect(page.getByLabel("unit", { exact: true })).toHaveValue("cron");
  await expect(page.getByLabel("lines", { exact: true })).toHaveValue("77");
  await page.getByRole("button", { name: "edit" }).click();
  await page.getByLabel("label", { exact: true }).fill("Car Port");
  await page.getByLabel("tags", { exact: true }).fill("camera street");
  await again();
  await expect(page.getByLabel("label", { exact: true })).toHaveValue("Car Port");
  await expect(page.getByLabel("tags", { exact: true })).toHaveValue("camera street");
  await page.getByRole("button", { name: "save" }).click();
  await expect(page.getByRole("heading", { name: "Car Port" })).toBeVisible();
  await page.keyboard.press("r");
  const dialog = page.getByRole("dialog", { name: "Run a task" });
  await dialog.locator('select[name="task"]').selectOption("count");
  await dialog.getByLabel("lines", { exact: true }).fill("12");
  await again();
  await expect(dialog.getByLabel("lines", { exact: true })).toHaveValue("12");
});

test("signing out ends the session on the server, and nothing of it stays readable", async ({ page, enter, mock }) => {
  await enter();
  await terminal(page).run("task run uptime pi-1");
  await terminal(page).shows("load average");
  await page.goto(`${mock.url}/#/settings`);
  await page.getByRole("button", { name: "sign out" }).click();
  await expect(page.getByLabel("Token or sign-in link")).toBeVisible();
  await expect(page.getByText("The controller printed a sign-in link")).toBeVisible();
  await expect(page).toHaveURL(`${mock.url}/#/`);
  expect(await page.locator("body").textContent()).not.toMatch(/load average|Rack Pi 1|accounts/i);
  expect(await page.evaluate(() => JSON.stringify(localStorage))).not.toContain("uptime");
  const answer = await page.request.get(`${mock.url}/api/me`);
  expect(answer.status()).toBe(401);
});

test("signing out in one tab takes the fleet off the others, and a key without its session does not sign in", async ({
  page,
  enter,
  mock,
}) => {
  await enter();
  const other = await page.context().newPage();
  await other.goto(mock.url);
  await expect(other.locator('[data-pi="pi-1"]')).toBeVisible();
  await page.goto(`${mock.url}/#/settings`);
  await page.getByRole("button", { name: "sign out" }).click();
  await expect(page.getByLabel("Token or sign-in link")).toBeVisible();
  await expect(other.getByLabel("Token or sign-in link")).toBeVisible();
  await page.evaluate(() => localStorage.setItem("pistat.session /", "guess"));
  await page.reload();
  await expect(page.getByLabel("Token or sign-in link")).toBeVisible();
});

test("a session outlives the page, and its cookie without the key opens nothing", async ({ page, enter, mock }) => {
  await enter();
  await page.reload();
  await expect(page.locator('[data-pi="pi-1"]')).toBeVisible();
  // What another program on the controller's host receives.
  expect((await page.request.get(`${mock.url}/api/pis`)).status()).toBe(401);
  await page.evaluate(() => localStorage.removeItem("pistat.session /"));
  await page.reload();
  await expect(page.getByLabel("Token or sign-in link")).toBeVisible();
});

test("the output of a run is saved with the session, though a link could not carry its key", async ({
  page,
  enter,
  mock,
}) => {
  await enter();
  const [run] = mock.controller.newest(mock.controller.runs, 1);
  await page.goto(`${mock.url}/#/runs/${run?.id}`);
  const saved = page.waitForEvent("download");
  await page.getByRole("button", { name: "download" }).click();
  const download = await saved;
  expect(download.suggestedFilename()).toBe(`${run?.id}.txt`);
  const chunks: Buffer[] = [];
  for await (const chunk of await download.createReadStream()) chunks.push(chunk as Buffer);
  const pieces = mock.controller.outputs.get(run?.id ?? "")?.pieces ?? [];
  expect(Buffer.concat(chunks).toString()).toBe(pieces.map((piece) => piece.data).join(""));
  expect(pieces.length).toBeGreaterThan(0);
});

test("signed-in browsers are listed, and another one's session is ended", async ({ page, enter, mock }) => {
  await page.request.post(`${mock.url}/api/login`, { data: { token: "viewer-token" } });
  await enter("#/settings");
  const row = (account: string) =>
    page.getByRole("listitem").filter({ hasText: "Firefox" }).filter({ hasText: account });
  await expect(row("admin")).toContainText("this browser");
  await row("wall-display").getByRole("button", { name: "end" }).click();
  await expect(row("wall-display")).toHaveCount(0);
  await page.getByRole("button", { name: "end all of mine" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "end all" }).click();
  await expect(page.getByLabel("Token or sign-in link")).toBeVisible();
});

test("a sign-out that does not reach the controller says so", async ({ page, enter, mock }) => {
  await enter("#/settings");
  await expect(page.getByRole("button", { name: "sign out" })).toBeVisible();
  mock.refuse(true);
  await page.getByRole("button", { name: "sign out" }).click();
  await expect(page.getByText("The controller does not answer.").first()).toBeVisible();
  await expect(page.getByRole("button", { name: "sign out" })).toBeVisible();
});

test("accounts are added, shown their token once, and removed", async ({ page, enter }) => {
  await enter("#/settings");
  await page.getByLabel("Name of the new account").fill("garage-tablet");
  await page.getByLabel("Role of the new account").selectOption("operator");
  await page.getByRole("button", { name: "add", exact: true }).click();
  await expect(page.getByText("The token of garage-tablet.")).toBeVisible();
  await page.getByRole("button", { name: "done" }).click();
  await expect(page.getByText("The token of garage-tablet.")).toHaveCount(0);
  await page.getByRole("button", { name: "remove garage-tablet" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "remove" }).click();
  await expect(page.getByRole("listitem").filter({ hasText: "garage-tablet" })).toHaveCount(0);
});

test("the join token is shown when asked for, and made anew after a question", async ({ page, enter, mock }) => {
  await enter("#/settings");
  const before = mock.controller.joinToken;
  await expect(page.getByText(before)).toHaveCount(0);
  await page.getByRole("button", { name: "show" }).click();
  await expect(page.getByText(before)).toBeVisible();
  await page.getByRole("button", { name: "make a new one" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "new join token" }).click();
  await expect.poll(() => mock.controller.joinToken).not.toBe(before);
  await expect(page.getByText(mock.controller.joinToken)).toBeVisible();
});

test("a join token with bounds is made, shown once, listed and removed", async ({ page, enter, mock }) => {
  await enter("#/settings");
  await page.getByLabel("Name of the new join token").fill("cameras");
  await page.getByLabel("How many machines it lets in").fill("5");
  await page.getByLabel("Tags of machines that join with it").fill("@camera street");
  await page.getByRole("button", { name: "add join token" }).click();
  await expect(page.getByText("The token of cameras.")).toBeVisible();
  const row = page.getByRole("listitem").filter({ hasText: "cameras" });
  await expect(row).toContainText("5 more machines");
  await expect(row).toContainText("@camera @street");
  expect(mock.controller.joinTokens.get("cameras")?.tags).toEqual(["camera", "street"]);
  await row.getByRole("button", { name: "remove" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "remove" }).click();
  await expect(row).toHaveCount(0);
});

test("adding a Pi shows the one command and turns green when the machine appears", async ({ page, enter, mock }) => {
  await enter();
  await page.getByRole("button", { name: "Add a Pi" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("pi-id").fill("pi-77");
  await dialog.getByLabel("label").fill("Tom's Shed $1");
  const [sha, token, url] = [mock.controller.installScript, mock.controller.joinToken, mock.controller.url];
  const command = `f=$(mktemp) && curl -fsS ${url}/install.sh -o "$f" && echo "${sha} $f" | sha256sum -c - && printf %s ${token} | sudo sh "$f" --controller-url ${url} --pi-id pi-77 --label 'Tom'\\''s Shed $1'`;
  await expect(dialog.locator("code")).toHaveText(command);
  await dialog.getByLabel("tasks that need root").check();
  await expect(dialog.locator("code")).toHaveText(`${command} --with-root-tasks`);
  await expect(dialog.getByText("waiting for pi-77")).toBeVisible();
  mock.controller.join("pi-77", "Tom's Shed $1");
  await expect(dialog.getByText("is here.")).toBeVisible();
  await expect(dialog.locator("code")).toHaveClass(/arrived/);
  await dialog.getByRole("link", { name: "look at it" }).click();
  await expect(page.getByRole("heading", { name: "Tom's Shed $1" })).toBeVisible();
});

test("a controller without agents says how one that is there already is started", async ({ page, enter, mock }) => {
  mock.controller.architectures = [];
  await enter();
  await page.getByRole("button", { name: "Add a Pi" }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog.getByText("This controller has no agent to hand out")).toBeVisible();
  await expect(dialog.locator("code")).toHaveText(
    new RegExp(
      `^PISTAT_AGENT_TOKEN=${mock.controller.joinToken} pistat-agent --controller-url ${mock.controller.url} `,
    ),
  );
});

test("a pi-id that cannot be is explained", async ({ page, enter }) => {
  await enter();
  await page.getByRole("button", { name: "Add a Pi" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("pi-id").fill("garage door");
  await expect(dialog.getByText("A pi-id is letters, digits")).toBeVisible();
  await expect(dialog.getByRole("button", { name: "copy" })).toBeDisabled();
  await dialog.getByLabel("pi-id").fill("Admin");
  await expect(dialog.getByText("Admin is reserved")).toBeVisible();
});
