import { describe, expect, test } from "vitest";
import { align, type Interval, joined, late, live, reboots, thin, unknown } from "./known";

describe("what is not known", () => {
  test.each<[string, Interval[], Array<[number, number]>]>([
    ["everything without an interval", [], [[0, 100]]],
    ["nothing when all is covered", [[0, 100, "live"]], []],
    [
      "what is before, between and after",
      [
        [20, 40, "live"],
        [60, 80, "late"],
      ],
      [
        [0, 20],
        [40, 60],
        [80, 100],
      ],
    ],
    [
      "not what a longer interval before has covered",
      [
        [0, 70, "live"],
        [10, 20, "late"],
      ],
      [[70, 100]],
    ],
    [
      "not a pause between two samples",
      [
        [0, 50, "live"],
        [53, 98, "live"],
      ],
      [],
    ],
    [
      "in any order of the intervals, and within the bounds only",
      [
        [90, 200, "live"],
        [-50, 10, "live"],
      ],
      [[10, 90]],
    ],
    ["everything when all intervals are later", [[120, 130, "live"]], [[0, 100]]],
  ])("is %s", (_name, known, expected) => expect(unknown(known, 0, 100, 5)).toEqual(expected));
});

describe("what an agent remembered", () => {
  test("is one stretch, though in short steps one sample a minute is known", () =>
    expect(
      joined([
        [0, 10, "live"],
        [40, 50, "late"],
        [100, 110, "late"],
        [160, 170, "late"],
        [180, 190, "live"],
        [300, 310, "live"],
        [400, 410, "late"],
      ]),
    ).toEqual([
      [0, 10, "live"],
      [10, 180, "late"],
      [180, 190, "live"],
      [300, 310, "live"],
      [400, 410, "late"],
    ]));
});

describe("what arrived late", () => {
  const times = [0, 10, 20, 30, 40];
  const values = [1, 2, 3, 4, 5];
  const known: Interval[] = [
    [0, 15, "live"],
    [15, 35, "late"],
    [35, 50, "live"],
  ];
  test("is a line of its own that meets the other on both sides", () => {
    expect(late(times, values, known)).toEqual([null, 2, 3, 4, 5]);
    expect(live(times, values, known)).toEqual([1, 2, null, null, 5]);
  });
  test("keeps its gaps", () => expect(late(times, [1, 2, null, 4, 5], known)).toEqual([null, 2, null, 4, 5]));
  test("is nothing where all is live", () => {
    expect(late(times, values, [[0, 50, "live"]])).toEqual([null, null, null, null, null]);
    expect(live(times, values, [[0, 50, "live"]])).toEqual(values);
  });
});

describe("another line beside this one", () => {
  test("has the nearest values within its reach", () =>
    expect(align([0, 10, 20, 30], [1, 11, 29], [7, null, 9], 5)).toEqual([7, null, null, 9]));
  test("of a week before is moved by a week", () =>
    expect(align([604_800, 604_810], [0, 10], [1, 2], 5, 604_800)).toEqual([1, 2]));
  test("without values is nothing", () => expect(align([0, 10], [], [], 5)).toEqual([null, null]));
});

describe("marks", () => {
  test("that lie on each other become one, and a reboot is never hidden", () =>
    expect(
      thin(
        [
          { time: 50, kind: "run", text: "late" },
          { time: 10, kind: "run", text: "reboot" },
          { time: 12, kind: "reboot", text: "restarted" },
        ],
        5,
      ),
    ).toEqual([
      { time: 10, kind: "reboot", text: "reboot · restarted" },
      { time: 50, kind: "run", text: "late" },
    ]));
  test("of reboots stand where the uptime began again, also after a gap", () =>
    expect(reboots([0, 10, 20, 30, 40], [100, 110, null, 4, 14])).toEqual([26]));
});
