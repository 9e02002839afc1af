// Closes vitest's run with one plain line of counts: `unit: 96 passed, 0 failed, 0 skipped`.

import type { Reporter, TestModule } from "vitest/node";

export default class Counts implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const states = modules.flatMap((module) => [...module.children.allTests()].map((test) => test.result().state));
    const broken = modules.filter(
      (module) =>
        module.state() === "failed" &&
        [...module.children.allTests()].every((test) => test.result().state !== "failed"),
    ).length;
    const count = (name: string): number => states.filter((state) => state === name).length;
    console.log(`unit: ${count("passed")} passed, ${count("failed") + broken} failed, ${count("skipped")} skipped`);
  }
}
