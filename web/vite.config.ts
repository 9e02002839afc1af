import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";
import { precompress } from "./build/precompress.ts";
import { preload } from "./build/preload.ts";

export default defineConfig({
  // Relative addresses: the dashboard also works below a path of a reverse proxy.
  base: "./",
  plugins: [svelte(), preload(), precompress()],
  build: {
    target: "es2022",
    // A data: address would need an exception in the content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: {
    proxy: { "/api": { target: process.env.PISTAT_CONTROLLER_URL ?? "http://127.0.0.1:8000", ws: true } },
  },
  test: {
    include: ["src/**/*.test.ts"],
    setupFiles: ["./tests/unit-setup.ts"],
    reporters: ["default", "./tests/unit-counts.ts"],
  },
});
