// The columns of the table, and the order that each gives.

import type { Held } from "../store";
import { fullestDisk, health } from "./health";

export interface Column {
  name: string;
  title: string;
  number?: boolean;
  /** Whether a bar goes with its number. */
  meter?: boolean;
  value: (held: Held) => number | string | undefined;
}

const SEVERITY = { offline: 2, warning: 1, ok: 0 };

export const COLUMNS: Column[] = [
  { name: "!", title: "Sort by trouble", value: (held) => SEVERITY[health(held)] },
  { name: "label", title: "Sort by label", value: (held) => held.machine.label.toLowerCase() },
  { name: "id", title: "Sort by pi-id", value: (held) => held.machine.id },
  { name: "for", title: "Sort by responsibility", value: (held) => held.machine.assignment?.toLowerCase() },
  { name: "cpu", title: "Sort by CPU", meter: true, value: (held) => held.sample?.cpu_percent },
  { name: "ram", title: "Sort by memory", meter: true, value: (held) => held.sample?.memory_percent },
  { name: "temp", title: "Sort by temperature", number: true, value: (held) => held.sample?.temperature_celsius },
  { name: "disk", title: "Sort by the fullest disk", number: true, value: (held) => fullestDisk(held.sample) },
  { name: "load", title: "Sort by load", number: true, value: (held) => held.sample?.load1 },
  { name: "rx", title: "Sort by bytes received", number: true, value: (held) => held.sample?.network_rx_bytes_per_second },
  { name: "tx", title: "Sort by bytes sent", number: true, value: (held) => held.sample?.network_tx_bytes_per_second },
  { name: "up", title: "Sort by uptime", number: true, value: (held) => held.sample?.uptime_seconds },
  { name: "state", title: "Sort by when it was last heard", value: (held) => held.seenAt ?? 0 },
];

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** Compares by a column; machines without a value come last, and equals stand by label and id. */
export function comparison(name: string, descending: boolean): (a: Held, b: Held) => number {
  const column = COLUMNS.find((each) => each.name === name) ?? COLUMNS[1];
  const sign = descending ? -1 : 1;
  return (a, b) => {
    const left = column?.value(a);
    const right = column?.value(b);
    if (left === undefined || right === undefined) {
      return left === right ? byLabel(a, b) : left === undefined ? 1 : -1;
    }
    const order = typeof left === "number" && typeof right === "number" ? left - right : collator.compare(String(left), String(right));
    return order === 0 ? byLabel(a, b) : sign * order;
  };
}

/** The order of cards and wall: the numbers in pi-ids count as numbers. */
export function byId(a: Held, b: Held): number {
  return collator.compare(a.machine.id, b.machine.id);
}

function byLabel(a: Held, b: Held): number {
  return collator.compare(a.machine.label, b.machine.label) || byId(a, b);
}
