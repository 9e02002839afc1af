import { expect, test } from "vitest";
import { snapshot } from "../live/fixtures";
import { brokerUrl, controllerUrl, installCommand, listenCommand, publishCommand, startCommand } from "./install";

const joining = { url: "http://pi.example:8000", pi: "pi-1", label: "Tom's Shed $1", token: "a.b" };

test("the script is compared before it is started, and the token is not an argument of it", () => {
  expect(installCommand(joining, "00ff", false).join(" ")).toBe(
    `f=$(mktemp) && curl -fsS http://pi.example:8000/install.sh -o "$f" && echo "00ff  $f" | sha256sum -c - && ` +
      `printf %s a.b | sudo sh "$f" --controller-url http://pi.example:8000 --pi-id pi-1 --label 'Tom'\\''s Shed $1'`,
  );
  expect(installCommand(joining, "00ff", true).at(-1)).toBe("--with-root-tasks");
});

test("an agent that is there already is only started", () => {
  expect(startCommand(joining).join(" ")).toBe(
    `PISTAT_AGENT_TOKEN=a.b pistat-agent --controller-url http://pi.example:8000 --pi-id pi-1 --label 'Tom'\\''s Shed $1'`,
  );
});

test("on another's broker a machine is its own user", () => {
  expect(brokerUrl("mqtts://broker.lan:8883", "pi-1")).toBe("mqtts://pi-1:PASSWORD@broker.lan:8883");
  expect(brokerUrl("ws://broker.lan:80/mqtt", "pi-1")).toBe("ws://pi-1:PASSWORD@broker.lan:80/mqtt");
});

test.each([
  ["http://localhost:8000/#/", "http://10.0.0.2:8000"],
  ["http://127.0.0.1:8000/", "http://10.0.0.2:8000"],
  ["http://[::1]:8000/", "http://10.0.0.2:8000"],
  ["http://pi.lan:8000/#/pi/pi-1", "http://pi.lan:8000"],
  ["https://home.example/pistat/#/", "https://home.example/pistat"],
])("viewed at %s the controller is reached by %s", (page, expected) =>
  expect(controllerUrl(page, "http://10.0.0.2:8000")).toBe(expected),
);

test.each([
  ["mqtt://10.0.0.2:1884", null, "http://localhost:8000/", "-h 10.0.0.2 -p 1884 -u anna"],
  ["mqtt://10.0.0.2:1884", null, "http://pi.lan:8000/", "-h pi.lan -p 1884 -u anna"],
  ["mqtt://10.0.0.2:1884", null, "http://[fd00::1]:8000/", "-h fd00::1 -p 1884 -u anna"],
  [
    "mqtts://broker.lan:8883",
    "mqtts://c:***@broker.lan:8883",
    "http://pi.lan:8000/",
    "-h broker.lan -p 8883 --tls-use-os-certs -u USER",
  ],
])("a broker at %s (%s), viewed at %s, is subscribed to with %s", (mqtt_url, external_broker, page, expected) => {
  const controller = { ...snapshot().controller, mqtt_url, external_broker };
  expect(listenCommand(controller, page, "anna", "pistat/pi-1")?.join(" ")).toBe(
    `mosquitto_sub ${expected} -P '…' -v -t 'pistat/pi-1/#'`,
  );
  expect(publishCommand(controller, page, "anna", "pistat/@all/task/request", "uptime")?.join(" ")).toBe(
    `mosquitto_pub ${expected} -P '…' -t pistat/@all/task/request -m uptime`,
  );
});

test("no line is shown that cannot work", () => {
  for (const mqtt_url of [null, "ws://broker.lan:80/mqtt"]) {
    expect(listenCommand({ ...snapshot().controller, mqtt_url }, "http://pi.lan/", "anna", "pistat/pi-1")).toBeNull();
    expect(
      publishCommand(
        { ...snapshot().controller, mqtt_url },
        "http://pi.lan/",
        "anna",
        "pistat/pi-1/task/request",
        "uptime",
      ),
    ).toBeNull();
  }
});

test("a command is broken before an option, never inside it", () => {
  const parts = publishCommand(
    snapshot().controller,
    "http://pi.lan/",
    "anna b",
    "pistat/pi-1/task/request",
    '{"task":"ping"}',
  );
  expect(parts).toEqual([
    "mosquitto_pub",
    "-h pi.lan",
    "-p 1883",
    "-u 'anna b'",
    "-P '…'",
    "-t pistat/pi-1/task/request",
    `-m '{"task":"ping"}'`,
  ]);
});
