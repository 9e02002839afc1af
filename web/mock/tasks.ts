// The mock's catalogue, and what its tasks print.

import type { TaskView } from "../src/protocol/types";

const task = (id: string, label: string, description: string, more: Partial<TaskView> = {}): TaskView => ({
  id,
  label,
  description,
  args: [],
  timeout_seconds: 60,
  role: "operator",
  confirm: false,
  concurrency: 1,
  on: ["@all"],
  root: false,
  ends: "exit",
  schedule: null,
  ...more,
});

export const TASKS: TaskView[] = [
  task("uptime", "Uptime", "Show how long the machine has been running"),
  task("disk-usage", "Disk usage", "Show free space on every mounted disk"),
  task("service-log", "Service log", "Show the last lines of a service's journal", {
    args: [
      { name: "unit", label: "unit", kind: { type: "choices", choices: ["ssh", "cron"] }, default: null },
      { name: "lines", label: "lines", kind: { type: "integer", min: 1, max: 1000 }, default: 100 },
    ],
  }),
  task("failed-services", "Failed services", "List the units that failed"),
  task("ping", "Ping", "Ask another host whether it answers", {
    args: [
      {
        name: "host",
        label: "host",
        kind: { type: "pattern", pattern: "[a-z0-9.-]+", max_length: 60 },
        default: "10.0.0.1",
      },
      { name: "wait", label: "wait (s)", kind: { type: "number", min: 0.1, max: 5 }, default: 1 },
      { name: "verbose", label: "verbose", kind: { type: "boolean" }, default: false },
    ],
  }),
  task("count", "Count", "Count slowly, for looking at live output", {
    args: [{ name: "lines", label: "lines", kind: { type: "integer", min: 1, max: 100_000 }, default: 10 }],
  }),
  task("apt-upgrade", "Upgrade packages", "Install pending package updates", {
    confirm: true,
    root: true,
    timeout_seconds: 1800,
  }),
  task("reboot", "Reboot", "Restart the machine", { confirm: true, root: true, ends: "restart" }),
];

export interface Line {
  /** Milliseconds after the start. */
  at: number;
  text: string;
  stderr?: boolean;
}

export interface Script {
  lines: Line[];
  ends: number;
  exitCode: number;
}

/** What a run prints and how it ends. */
export function script(taskId: string, args: Record<string, unknown>, label: string, index: number): Script {
  switch (taskId) {
    case "uptime":
      return {
        lines: [{ at: 8, text: " 21:04:12 up 41 days,  3:22,  0 users,  load average: 0.31, 0.24, 0.19\n" }],
        ends: 38,
        exitCode: 0,
      };
    case "disk-usage":
      return {
        lines: [
          {
            at: 10,
            text: "Filesystem      Size  Used Avail Use% Mounted on\n/dev/mmcblk0p2   29G   11G   18G  38% /\n/dev/mmcblk0p1  510M   65M  446M  13% /boot/firmware\n",
          },
        ],
        ends: 52,
        exitCode: 0,
      };
    case "service-log":
      return {
        lines: [
          { at: 40, text: `Nov 22 20:58:01 pi-4 sshd[812]: Server listening on 0.0.0.0 port 22.\n` },
          { at: 90, text: `Nov 22 21:01:44 pi-4 sshd[9121]: Accepted publickey for backup from 10.0.0.8\n` },
        ],
        ends: 212,
        exitCode: 0,
      };
    case "count":
      return count(Number(args.lines ?? 10));
    case "apt-upgrade":
      return upgrade(label, index);
    default:
      return { lines: [{ at: 20, text: `${taskId}: nothing to report\n` }], ends: 60, exitCode: 0 };
  }
}

function count(lines: number): Script {
  const every = lines > 200 ? 0 : 120;
  if (every > 0) {
    const printed = Array.from({ length: lines }, (_, index) => ({
      at: index * every,
      text: `\u001b[3${(index % 6) + 1}mline ${index + 1}\u001b[0m of ${lines}\n`,
    }));
    return { lines: printed, ends: lines * every, exitCode: 0 };
  }
  const chunks: Line[] = [];
  for (let from = 0; from < lines; from += 500) {
    const text = Array.from(
      { length: Math.min(500, lines - from) },
      (_, index) => `line ${from + index + 1} of ${lines}\n`,
    ).join("");
    chunks.push({ at: (from / 500) * 10, text });
  }
  return { lines: chunks, ends: chunks.length * 10 + 50, exitCode: 0 };
}

function upgrade(label: string, index: number): Script {
  if (label === "Attic Cam") {
    return {
      lines: [
        { at: 300, text: "Reading package lists...\n" },
        { at: 900, text: "E: dpkg was interrupted, run 'dpkg --configure -a'\n", stderr: true },
      ],
      ends: 1240,
      exitCode: 100,
    };
  }
  const slow = index % 3 === 2 ? 40_000 : 1_200 + (index % 11) * 130;
  return {
    lines: [
      { at: 250, text: "Reading package lists...\n" },
      { at: 600, text: "Preparing to unpack libssl3 (3.0.17-1~deb12u3)...\n" },
      { at: 900, text: "Unpacking libssl3 (3.0.17-1~deb12u3) ...\n" },
    ],
    ends: slow,
    exitCode: 0,
  };
}
