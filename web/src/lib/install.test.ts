import { expect, test } from "vitest";
import { brokerUrl, installCommand, startCommand } from "./install";

const joining = { url: "http://pi.example:8000", pi: "pi-1", label: "Tom's Shed $1", token: "a.b" };

test("the script is compared before it is started, and the token is no argument of it", () => {
  expect(installCommand(joining, "00ff", false).join(" ")).toBe(
    `f=$(mktemp) && curl -fsS http://pi.example:8000/install.sh -o "$f" && echo "00ff  $f" | sha256sum -c - && ` +
      `printf %s a.b | sudo sh "$f" --controller-url http://pi.example:8000 --pi-id pi-1 --label 'Tom'\\''s Shed $1'`,
  );
  expect(installCommand(joining, "00ff", true).at(-1)).toBe("--with-root-tasks");
});

test("an agent that is there already is only started", () => {
  expect(startCommand(joining).join(" ")).toBe(`pistat-agent --controller-url http://pi.example:8000 --pi-id pi-1 --label 'Tom'\\''s Shed $1' --token a.b`);
});

test("on another's broker a machine is its own user", () => {
  expect(brokerUrl("mqtts://controller:***@broker.lan:8883", "pi-1")).toBe("mqtts://pi-1:PASSWORD@broker.lan:8883");
  expect(brokerUrl("ws://broker.lan:80/mqtt", "pi-1")).toBe("ws://pi-1:PASSWORD@broker.lan:80/mqtt");
});
