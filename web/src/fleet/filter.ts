// The filter language of STATS: words that must all hold. `@tag`, `status:offline`, `cpu>80`,
// `-word`, "two words", free text.

import { fullestDisk, health } from "../live/health";
import type { Held } from "../live/store";

export interface Filter {
  /** Whether a machine passes. */
  test(held: Held): boolean;
  /** Whether the answer can change with a sample. */
  live: boolean;
  /** What was not understood, in sentences. */
  problems: string[];
}

type Test = (held: Held) => boolean;

const NUMBERS: Record<string, (held: Held) => number | undefined> = {
  cpu: (held) => held.sample?.cpu_percent,
  ram: (held) => held.sample?.memory_percent,
  mem: (held) => held.sample?.memory_percent,
  memory: (held) => held.sample?.memory_percent,
  temp: (held) => held.sample?.temperature_celsius,
  disk: (held) => fullestDisk(held.sample),
  load: (held) => held.sample?.load1,
  uptime: (held) => held.sample?.uptime_seconds,
  wifi: (held) => held.sample?.wifi_signal_dbm,
};

const UNITS: Record<string, number> = { "": 1, "%": 1, "°c": 1, c: 1, s: 1, m: 60, h: 3600, d: 86_400 };

const STATUSES = ["online", "stale", "offline", "warning", "ok"];

/** What may stand in a filter, for help and the placeholder. */
export const FILTER_HELP = `any words · @tag · status:${STATUSES.join(" ")} · cpu>80, also ram temp disk load wifi uptime · -word for not`;

export function parseFilter(text: string): Filter {
  const filter: Filter = { test: () => true, live: false, problems: [] };
  const tests = words(text).map((word) => negatable(word, filter));
  filter.test = (held) => tests.every((test) => test(held));
  return filter;
}

function words(text: string): string[] {
  return [...text.matchAll(/(-?)"([^"]*)"?|\S+/g)].map((match) =>
    match[2] === undefined ? match[0] : `${match[1] ?? ""}${match[2]}`,
  );
}

function negatable(word: string, filter: Filter): Test {
  if (word.length > 1 && /^[-!]/.test(word)) {
    const test = wordTest(word.slice(1), filter);
    return (held) => !test(held);
  }
  return wordTest(word, filter);
}

function wordTest(word: string, filter: Filter): Test {
  if (word.startsWith("@")) {
    return tagTest(word.slice(1).toLowerCase());
  }
  const named = /^(status|id|tag|model|os):(.*)$/i.exec(word);
  if (named) {
    return namedTest((named[1] ?? "").toLowerCase(), (named[2] ?? "").toLowerCase(), filter);
  }
  const compared = /^([a-z]+)(<=|>=|<|>|=)(-?[\d.]*)(\D*)$/i.exec(word);
  if (compared) {
    return numberTest(compared, filter);
  }
  return textTest(word.toLowerCase());
}

function tagTest(tag: string): Test {
  // While a tag is being typed, its beginning is enough.
  return tag === "" || tag === "all" ? () => true : (held) => held.machine.tags.some((known) => known.startsWith(tag));
}

function namedTest(name: string, value: string, filter: Filter): Test {
  switch (name) {
    case "status":
      return statusTest(value, filter);
    case "tag":
      return tagTest(value);
    case "id":
      return (held) => held.machine.id.toLowerCase().includes(value);
    case "model":
      return (held) => (held.machine.info?.model ?? "").toLowerCase().includes(value);
    default:
      return (held) => (held.machine.info?.os ?? "").toLowerCase().includes(value);
  }
}

function statusTest(value: string, filter: Filter): Test {
  const wanted = STATUSES.find((status) => value !== "" && status.startsWith(value));
  if (!wanted) {
    if (value !== "") {
      filter.problems.push(`A status is ${STATUSES.join(", ")}; not "${value}".`);
    }
    return () => true;
  }
  if (wanted === "warning" || wanted === "ok") {
    filter.live = true;
    return (held) => health(held) === wanted;
  }
  return (held) => held.status === wanted;
}

function numberTest(parts: RegExpExecArray, filter: Filter): Test {
  const [, name = "", operator = "", digits = "", unit = ""] = parts;
  const read = NUMBERS[name.toLowerCase()];
  const factor = UNITS[unit.trim().toLowerCase()];
  if (!read || factor === undefined) {
    filter.problems.push(`"${name}" is not a number of a machine: take ${Object.keys(NUMBERS).join(", ")}.`);
    return () => true;
  }
  if (digits === "" || Number.isNaN(Number(digits))) {
    return () => true;
  }
  filter.live = true;
  const limit = Number(digits) * factor;
  return (held) => {
    const value = read(held);
    return value !== undefined && compare(value, operator, limit);
  };
}

function compare(value: number, operator: string, limit: number): boolean {
  switch (operator) {
    case "<":
      return value < limit;
    case "<=":
      return value <= limit;
    case ">":
      return value > limit;
    case ">=":
      return value >= limit;
    default:
      return Math.round(value) === Math.round(limit);
  }
}

function textTest(word: string): Test {
  return ({ machine }) =>
    machine.label.toLowerCase().includes(word) ||
    machine.id.toLowerCase().includes(word) ||
    (machine.assignment ?? "").toLowerCase().includes(word) ||
    machine.tags.some((tag) => tag.includes(word)) ||
    (machine.info?.model ?? "").toLowerCase().includes(word);
}
