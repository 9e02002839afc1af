"""What a real Home Assistant makes of a controller and an agent.

Started by `run`, which gives the path of `hass`. Everything is real: programs, broker, Home Assistant; nothing is configured but an operator's account.
Each check waits for what must come, with a deadline; the first that does not come ends the run with exit code 1.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

HASS = sys.argv[1]
PROGRAMS = pathlib.Path(os.environ["PISTAT_TEST_PROGRAMS"])

# Home Assistant installs what its integrations need at its first start.
DEADLINE = 60
START = 600

PI = "rack_pi_1"


class Problem(Exception):
    """Something is not as it must be."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def eventually(what, find, limit=DEADLINE):
    """Waits until `find` gives something that is true, and gives that."""
    deadline, last = time.monotonic() + limit, None
    while time.monotonic() < deadline:
        try:
            found = find()
            if found:
                print(f"ok: {what}", flush=True)
                return found
        except (OSError, Problem) as error:
            last = error
        time.sleep(0.2)
    raise Problem(f"not within {limit} s: {what} ({last})")


def call(url, method="GET", body=None, token=None, form=None):
    """One HTTP request; gives the decoded answer."""
    headers, data = {}, None
    if token:
        headers["authorization"] = f"Bearer {token}"
    if body is not None:
        headers["content-type"], data = "application/json", json.dumps(body).encode()
    if form is not None:
        data = urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=180) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        raise Problem(f"{method} {url}: {error.code} {error.read().decode()[:300]}") from error
    try:
        return json.loads(text)
    except ValueError:
        return text


class Program:
    """A program that runs until it is told to end."""

    def __init__(self, words, folder, log):
        self.log = folder / log
        self.output = self.log.open("ab")
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
        passed_on = ("PIP_", "UV_", "SSL_", "http", "HTTP", "no_proxy", "NO_PROXY")
        environment |= {name: value for name, value in os.environ.items() if name.startswith(passed_on)}
        self.process = subprocess.Popen(words, cwd=folder, env=environment, stdout=self.output, stderr=subprocess.STDOUT)

    def text(self):
        return self.log.read_text(errors="replace")

    def find(self, pattern):
        """A line that the program wrote since this start."""
        if self.process.poll() is not None:
            raise Problem(f"{self.log.name} ended with {self.process.returncode}: {self.text()[-2000:]}")
        found = re.findall(pattern, self.text())
        return found and found[-1]

    def end(self, with_signal=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
            self.process.wait(60)


class Fleet:
    """A controller, and one machine."""

    def __init__(self, folder):
        self.folder = folder
        self.http_port, self.mqtt_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.start_controller()
        self.token = (folder / "state/admin.token").read_text().strip()
        self.join = (folder / "state/join.token").read_text().strip()
        words = [PROGRAMS / "pistat", "account", "add", "ha", "--role", "operator", "--json", "--controller-url", self.url]
        answer = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
        self.operator = json.loads(answer.stdout)["token"]
        self.start_agent()

    def start_controller(self):
        words = [PROGRAMS / "pistat", "serve", "--http", f"127.0.0.1:{self.http_port}", "--mqtt", f"127.0.0.1:{self.mqtt_port}"]
        self.controller = Program(words, self.folder, "controller.log")
        eventually("the controller answers", lambda: "ok" in call(f"{self.url}/healthz"))

    def start_agent(self):
        words = [PROGRAMS / "pistat-agent", "--controller-url", self.url, "--pi-id", "pi-1", "--label", "Rack Pi 1", "--interval", "1",
                 "--token", self.join, "--state", self.folder / "agent"]
        self.agent = Program(words, self.folder, "agent.log")

    def call(self, path, method="GET", body=None):
        return call(self.url + path, method, body, self.token)


class HomeAssistant:
    """A Home Assistant with nothing but MQTT, set up as a person does it."""

    CLIENT = "http://127.0.0.1/"

    def __init__(self, folder):
        self.folder = folder / "homeassistant"
        self.folder.mkdir()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (self.folder / "configuration.yaml").write_text("logger:\n  default: warning\n")
        self.token = None
        self.start()
        user = {"name": "a", "username": "a", "password": "a-password", "client_id": self.CLIENT, "language": "en"}
        code = self.call("/api/onboarding/users", "POST", user)["auth_code"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": self.CLIENT}
        self.token = call(f"{self.url}/auth/token", "POST", form=form)["access_token"]

    def start(self):
        listen = f"http:\n  server_host: 127.0.0.1\n  server_port: {self.port}\n"
        (self.folder / "configuration.yaml").write_text("logger:\n  default: warning\n" + listen)
        self.program = Program([HASS, "--config", self.folder], self.folder, "hass.log")
        eventually("Home Assistant is running", self.is_running, START)

    def is_running(self):
        self.program.find("")
        if self.token is None:
            return call(f"{self.url}/api/onboarding")
        return self.call("/api/config")["state"] == "RUNNING"

    def call(self, path, method="GET", body=None):
        return call(self.url + path, method, body, self.token)

    def add_mqtt(self, fleet):
        """As in Settings → Devices → Add integration → MQTT."""
        flow = self.call("/api/config/config_entries/flow", "POST", {"handler": "mqtt"})
        broker = {"broker": "127.0.0.1", "port": fleet.mqtt_port, "username": "ha", "password": fleet.operator, "other_settings": {"set_client_cert": False, "set_ca_cert": "off"}}
        done = self.call(f"/api/config/config_entries/flow/{flow['flow_id']}", "POST", broker)
        if done["type"] != "create_entry":
            raise Problem(f"MQTT was not set up: {done}")

    def states(self):
        return {state["entity_id"]: state for state in self.call("/api/states")}

    def state(self, entity):
        return self.states().get(entity, {}).get("state")

    def template(self, text):
        return self.call("/api/template", "POST", {"template": text})

    def complaints(self):
        """What it logged about MQTT."""
        lines = re.sub(r"\x1b\[[0-9;]*m", "", self.program.text()).splitlines()
        lost = ("Disconnected from MQTT", "Failed to connect to MQTT", "Error returned from MQTT server", "MQTT disconnected")
        return [line for line in lines if "mqtt" in line and re.search("WARNING|ERROR", line) and not any(text in line for text in lost)]


def is_number(text):
    try:
        return text is not None and float(text) >= 0
    except ValueError:
        return False


def entities(fleet, ha):
    cpu = f"sensor.{PI}_cpu"
    eventually("CPU and memory have numbers", lambda: is_number(ha.state(cpu)) and is_number(ha.state(f"sensor.{PI}_memory")))
    eventually("the machine is online", lambda: ha.state(f"binary_sensor.{PI}_online") == "on")
    eventually("the controller's own machine is there", lambda: is_number(ha.state("sensor.controller_cpu")))

    # One value may stay for long, as on a machine that is busy all the time; not all of them.
    def values():
        return [state["state"] for entity, state in ha.states().items() if entity.startswith(f"sensor.{PI}_")]

    before = values()
    eventually("values change with the samples", lambda: values() != before)
    states = ha.states()
    attributes = states[cpu]["attributes"]
    expected = {"unit_of_measurement": "%", "state_class": "measurement", "friendly_name": "Rack Pi 1 CPU"}
    wrong = {name: attributes.get(name) for name, value in expected.items() if attributes.get(name) != value}
    if wrong:
        raise Problem(f"{cpu} has {wrong} instead of {expected}")
    for entity in (f"button.{PI}_uptime", f"event.{PI}_task_result", f"sensor.{PI}_disk", f"sensor.{PI}_network_in"):
        if entity not in states:
            raise Problem(f"{entity} is missing among {sorted(states)}")
    # A machine whose clock was never synchronised does not know when it booted.
    boot_time = fleet.call("/api/pis/pi-1")["info"].get("boot_time")
    if (f"sensor.{PI}_last_boot" in states) != (boot_time is not None):
        raise Problem(f"the machine booted at {boot_time}, and there is {sorted(states)}")
    absent = [entity for entity in states if PI in entity and ("service_log" in entity or "service_restart" in entity)]
    if absent:
        raise Problem(f"tasks with arguments have buttons: {absent}")
    device = ha.template(f"{{{{ device_attr('{cpu}', 'name') }}}}|{{{{ device_attr('{cpu}', 'sw_version') }}}}")
    if not re.fullmatch(r"Rack Pi 1\|pistat-agent \S+", device):
        raise Problem(f"the device is {device}")
    via = ha.template(f"{{{{ device_attr(device_attr('{cpu}', 'via_device_id'), 'name') }}}}")
    if via != "controller":
        raise Problem(f"the device is reached by {via}")
    print(f"ok: {len([entity for entity in states if PI in entity])} entities of the machine, as they must be", flush=True)


def button(fleet, ha):
    ha.call("/api/services/button/press", "POST", {"entity_id": f"button.{PI}_uptime"})

    def succeeded():
        runs = [run for run in fleet.call("/api/runs?pi=pi-1") if run["state"] == "succeeded" and run["requested_by"] == "ha"]
        return len(runs) == 1

    eventually("a button press runs the task, once", succeeded)

    def told():
        event = ha.states()[f"event.{PI}_task_result"]
        return event["attributes"].get("event_type") == "succeeded" and event["attributes"].get("task") == "uptime"

    eventually("its end is an event", told)


class Board:
    """A simulated machine whose power the test decides: it enrols as any other, says what it is once, and then only samples."""

    PI = "pi-2"

    def __init__(self, fleet):
        self.fleet, self.secret, self.seq = fleet, "a-secret-of-the-test", 0
        # Home Assistant installed this client for its own MQTT integration.
        from paho.mqtt import MQTTException, publish

        self.publish, self.refused = publish, MQTTException
        self.join()
        info = {"label": "Power Pi", "agent_version": "test", "boot_id": "boot-1", "session": "0" * 32, "execution_policy": "never",
                "runner": False, "interval_seconds": 3600, "capabilities": ["cpu_percent", "power"], "known_runs": []}
        eventually("a simulated machine is enrolled", lambda: self.say(("info", json.dumps(info), True), ("status", "online", True)))

    def send(self, messages, client, password):
        """Gives whether the broker let it in."""
        try:
            self.publish.multiple(messages, hostname="127.0.0.1", port=self.fleet.mqtt_port, client_id=client,
                                  auth={"username": self.PI, "password": password})
            return True
        except self.refused as error:
            raise Problem(f"the broker says {error}") from error

    def join(self):
        request = {"secret_sha256": hashlib.sha256(self.secret.encode()).hexdigest(), "nonce": "a-nonce-of-the-test"}
        message = {"topic": f"$pistat/enroll/{self.PI}/request", "payload": json.dumps(request), "qos": 1}
        eventually("a simulated machine may ask to join", lambda: self.send([message], f"join-{self.PI}", self.fleet.join))

    def say(self, *words):
        messages = [{"topic": f"pistat/{self.PI}/{topic}", "payload": payload, "qos": 1, "retain": retain} for topic, payload, retain in words]
        return self.send(messages, self.PI, self.secret)

    def sample(self, power):
        self.seq += 1
        sample = {"time": "2026-11-22T12:00:00.000Z", "clock_synchronized": True, "seq": self.seq, "cpu_percent": 5.0}
        if power is not None:
            sample["power"] = power
        self.say(("stats", json.dumps(sample), True))


def power_problems(fleet, ha):
    board = Board(fleet)
    low, slow = "binary_sensor.power_pi_undervoltage", "binary_sensor.power_pi_throttled"
    for power, states, what in [
        ({"undervoltage": True, "throttled": True}, ("on", "on"), "a power problem is on"),
        ({"undervoltage": False, "throttled": False}, ("off", "off"), "a power problem that is over is off"),
        ({"throttled": True}, ("unknown", "on"), "what a sample leaves out is unknown, the rest is not"),
        ({"undervoltage": True, "throttled": False}, ("on", "off"), "it is known again"),
        (None, ("unknown", "unknown"), "without a word of its power everything about it is unknown"),
    ]:
        board.sample(power)
        eventually(what, lambda: (ha.state(low), ha.state(slow)) == states)
    if ha.states()[low]["attributes"].get("device_class") != "problem":
        raise Problem(f"{low} is not a problem: {ha.states()[low]}")
    fleet.call(f"/api/pis/{Board.PI}", "DELETE")
    eventually("it is gone when it is forgotten", lambda: low not in ha.states())


def killed_agent(fleet, ha):
    fleet.agent.end(signal.SIGKILL)
    eventually("a machine that is gone is off, not unavailable", lambda: ha.state(f"binary_sensor.{PI}_online") == "off")
    eventually("its values are unavailable", lambda: ha.state(f"sensor.{PI}_cpu") == "unavailable")
    eventually("its buttons are unavailable", lambda: ha.state(f"button.{PI}_uptime") == "unavailable")
    if ha.state("sensor.controller_cpu") == "unavailable":
        raise Problem("the controller's own machine went too")
    fleet.start_agent()
    eventually("it comes back", lambda: is_number(ha.state(f"sensor.{PI}_cpu")) and ha.state(f"binary_sensor.{PI}_online") == "on")


def killed_controller(fleet, ha):
    fleet.controller.end(signal.SIGKILL)
    eventually("without a controller everything is unavailable", lambda: ha.state(f"binary_sensor.{PI}_online") == "unavailable")
    fleet.start_controller()
    eventually("with it everything is back", lambda: is_number(ha.state(f"sensor.{PI}_cpu")), 2 * DEADLINE)


def restarted_home_assistant(fleet, ha):
    ha.program.end()
    ha.start()
    eventually("after a restart of Home Assistant everything is there", lambda: is_number(ha.state(f"sensor.{PI}_cpu")))
    eventually("also what tells that it is online", lambda: ha.state(f"binary_sensor.{PI}_online") == "on")


def renamed(fleet, ha):
    fleet.call("/api/pis/pi-1", "PATCH", {"label": "Garage"})
    eventually("a new name arrives", lambda: ha.states()[f"sensor.{PI}_cpu"]["attributes"]["friendly_name"] == "Garage CPU")


def task_that_is_gone(fleet, ha):
    (fleet.folder / "config").mkdir()
    catalogue = '[task.uptime]\nlabel = "Uptime"\ndescription = "How long"\ncommand = ["uptime"]\n'
    (fleet.folder / "config/tasks.toml").write_text(catalogue)
    eventually("a task that left the catalogue has no button", lambda: f"button.{PI}_memory" not in ha.states())
    if f"button.{PI}_uptime" not in ha.states():
        raise Problem("the button of a task that stayed is gone")


def forgotten(fleet, ha):
    fleet.agent.end()
    fleet.call("/api/pis/pi-1", "DELETE")
    eventually("a forgotten machine is gone", lambda: not [entity for entity in ha.states() if PI in entity])


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pistat-home-assistant-"))
    fleet = ha = None
    try:
        fleet = Fleet(folder)
        ha = HomeAssistant(folder)
        print("Home Assistant", ha.call("/api/config")["version"], "with Python", sys.version.split()[0], flush=True)
        ha.add_mqtt(fleet)
        for check in (entities, button, power_problems, killed_agent, killed_controller, restarted_home_assistant, renamed, task_that_is_gone, forgotten):
            check(fleet, ha)
        if complaints := ha.complaints():
            raise Problem("Home Assistant complains:\n" + "\n".join(complaints))
        print("ok: Home Assistant has nothing to complain about", flush=True)
    except (Problem, OSError) as problem:
        print(f"FAILED: {problem}\nlogs are in {folder}", flush=True)
        return 1
    finally:
        for program in (ha and ha.program, fleet and fleet.agent, fleet and fleet.controller):
            if program:
                program.end(signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
    print("1 passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
