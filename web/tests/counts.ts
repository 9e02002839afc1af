// Closes a run of tests with one plain line of counts, for people and for CI: `browser: 40 passed,
// 0 failed, 0 skipped`.

import type { FullResult, Reporter, TestCase } from "@playwright/test/reporter";

export default class Counts implements Reporter {
  readonly #tests = new Set<TestCase>();

  onTestEnd(test: TestCase): void {
    this.#tests.add(test);
  }

  onEnd(_result: FullResult): void {
    const outcomes = [...this.#tests].map((test) => test.outcome());
    const count = (...names: string[]): number => outcomes.filter((outcome) => names.includes(outcome)).length;
    console.log(
      `browser: ${count("expected", "flaky")} passed, ${count("unexpected")} failed, ${count("skipped")} skipped`,
    );
  }
}
