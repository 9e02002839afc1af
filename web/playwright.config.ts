import { defineConfig } from "@playwright/test";
import { EXECUTABLE, FLAGS } from "./tests/chromium";

export default defineConfig({
  testDir: "tests",
  testMatch: "*.spec.ts",
  fullyParallel: true,
  workers: 2,
  retries: 0,
  timeout: 30_000,
  expect: { timeout: 8_000 },
  reporter: [["list"], ["./tests/counts.ts"]],
  use: {
    viewport: { width: 1600, height: 1000 },
    launchOptions: { executablePath: EXECUTABLE, args: [...FLAGS, "--host-resolver-rules=MAP pi.lan 127.0.0.1"] },
  },
});
