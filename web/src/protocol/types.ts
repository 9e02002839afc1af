// Generated from protocol/src by protocol/examples/typescript.rs; never edited.

export type PiId = string;
export type AccountName = string;
export type TaskId = string;
export type Tag = string;
export type TokenName = string;
export type RunId = string;
export type Target = string;
export type Session = string;
export type Timestamp = string;

export const MAX_FOLLOWED = 16;
export const MACHINES_PER_MESSAGE = 100;

export type Role = "viewer" | "operator" | "admin";

export type Account = { 
/**
 * Its name, also its MQTT user name.
 */
name: AccountName, 
/**
 * What it may do.
 */
role: Role, 
/**
 * Topic filters that it may publish to, besides its role's.
 */
publish: Array<string>, 
/**
 * Topic filters that it may receive, besides its role's.
 */
subscribe: Array<string>, 
/**
 * When it was made.
 */
created_at: Timestamp, 
/**
 * When it ends; null is never.
 */
expires_at: Timestamp | null, 
/**
 * When its token was last used, over HTTP or MQTT; null is not yet, or before this was
 * remembered.
 */
last_used: Timestamp | null, };

export type Sample = { 
/**
 * The machine's clock when it measured.
 */
time: Timestamp, 
/**
 * Whether that clock was synchronised with a time server.
 */
clock_synchronized: boolean, 
/**
 * Counts the samples of this agent process, from 0.
 */
seq: number, 
/**
 * Busy time of all cores together, 0 to 100.
 */
cpu_percent?: number, 
/**
 * Busy time of each core, 0 to 100.
 */
cpu_cores_percent?: Array<number>, 
/**
 * The highest current clock of the cores.
 */
cpu_mhz?: number, 
/**
 * Load average over one minute.
 */
load1?: number, 
/**
 * Load average over five minutes.
 */
load5?: number, 
/**
 * Load average over fifteen minutes.
 */
load15?: number, 
/**
 * Memory in use: total less available.
 */
memory_used_bytes?: number, 
/**
 * All memory.
 */
memory_total_bytes?: number, 
/**
 * Memory in use, 0 to 100.
 */
memory_percent?: number, 
/**
 * Swap in use.
 */
swap_used_bytes?: number, 
/**
 * All swap.
 */
swap_total_bytes?: number, 
/**
 * Temperature of the processor.
 */
temperature_celsius?: number, 
/**
 * Real file systems.
 */
disks?: Array<Disk>, 
/**
 * Bytes read from real disks.
 */
disk_read_bytes_per_second?: number, 
/**
 * Bytes written to real disks.
 */
disk_write_bytes_per_second?: number, 
/**
 * Bytes received by real interfaces.
 */
network_rx_bytes_per_second?: number, 
/**
 * Bytes sent by real interfaces.
 */
network_tx_bytes_per_second?: number, 
/**
 * Wi-Fi signal level.
 */
wifi_signal_dbm?: number, 
/**
 * Time since boot.
 */
uptime_seconds?: number, 
/**
 * Processes.
 */
processes?: number, 
/**
 * Power health; absent where the board does not report it.
 */
power?: Power, };

export type Disk = { 
/**
 * Where it is mounted.
 */
mount: string, 
/**
 * Space in use.
 */
used_bytes: number, 
/**
 * All space.
 */
total_bytes: number, 
/**
 * Space in use of what ordinary users may use, 0 to 100, as `df` counts.
 */
used_percent: number, };

export type Power = { 
/**
 * The supply is below 4.63 V now.
 */
undervoltage?: boolean, 
/**
 * The processor is slowed down now.
 */
throttled?: boolean, 
/**
 * The clock is capped now.
 */
frequency_capped?: boolean, 
/**
 * The soft temperature limit is in force now.
 */
temperature_limited?: boolean, 
/**
 * Undervoltage has been seen since boot.
 */
undervoltage_since_boot?: boolean, 
/**
 * Throttling has been seen since boot.
 */
throttled_since_boot?: boolean, 
/**
 * A clock cap has been seen since boot.
 */
frequency_capped_since_boot?: boolean, 
/**
 * The soft temperature limit has been in force since boot.
 */
temperature_limited_since_boot?: boolean, 
/**
 * The bits as the firmware gave them to `vcgencmd`, in hexadecimal.
 */
raw?: string, };

export type ExecutionPolicy = "controller" | "listed" | "never";

export type Info = { 
/**
 * The agent's own label (`--label`); it is used until an operator renames the machine.
 */
label?: string, 
/**
 * The board, for example `Raspberry Pi 4 Model B Rev 1.4`.
 */
model?: string, 
/**
 * The board's serial number.
 */
serial?: string, 
/**
 * The operating system's name, `PRETTY_NAME` of os-release(5).
 */
os?: string, 
/**
 * The kernel's release, as `uname -r` prints it.
 */
kernel?: string, 
/**
 * The machine's architecture, as `uname -m` prints it.
 */
arch?: string, 
/**
 * Version of the agent.
 */
agent_version: string, 
/**
 * The kernel's random id of this boot (`/proc/sys/kernel/random/boot_id`).
 */
boot_id: string, 
/**
 * When the machine was started; absent until its clock is synchronised, constant until the
 * next boot.
 */
boot_time?: Timestamp, 
/**
 * The session of this connection.
 */
session: Session, 
/**
 * What the agent is willing to run.
 */
execution_policy: ExecutionPolicy, 
/**
 * With the policy `listed`, the tasks that the agent's own configuration lists; absent from
 * older agents.
 */
listed_tasks?: Array<TaskId>, 
/**
 * Whether the root runner is installed, so that tasks with `root = true` can run.
 */
runner: boolean, 
/**
 * The cadence in force.
 */
interval_seconds: number, 
/**
 * What this agent can measure or do, by the field's name in a sample.
 */
capabilities: Array<string>, 
/**
 * The runs that the agent has on its disk: everything else that it was sent, it never knew or
 * has finished with.
 */
known_runs: Array<RunId>, 
/**
 * Wear of the SD card or eMMC, 0 to 100 and more.
 */
storage_wear_percent?: number, 
/**
 * Package updates that wait to be installed.
 */
updates_pending?: number, 
/**
 * Whether the system asks to be restarted (`/run/reboot-required`), or runs another kernel
 * than the newest installed.
 */
reboot_required?: boolean, 
/**
 * Systemd units in state `failed`.
 */
failed_units?: Array<string>, 
/**
 * How many orders this agent process has refused as unsigned, altered, foreign, stale or
 * replayed; absent when none.
 */
orders_refused?: number, 
/**
 * Why the last of them was refused.
 */
last_order_refused?: string, };

export type RunState = "queued" | "dispatched" | "running" | "succeeded" | "failed" | "timed_out" | "cancelled" | "rejected" | "expired" | "lost";

export type ArgumentValue = boolean | number | number | string;

export type Stream = "stdout" | "stderr";

export type Ends = "exit" | "restart" | "power-off";

export type ArgumentKind = { "type": "choices", 
/**
 * The list.
 */
choices: Array<string>, } | { "type": "integer", 
/**
 * The least value.
 */
min: number, 
/**
 * The greatest value.
 */
max: number, } | { "type": "number", 
/**
 * The least value.
 */
min: number, 
/**
 * The greatest value.
 */
max: number, } | { "type": "pattern", 
/**
 * The regular expression.
 */
pattern: string, 
/**
 * The most characters.
 */
max_length: number, } | { "type": "boolean" } | { "type": "machine" };

export type ArgumentView = { 
/**
 * Its name.
 */
name: string, 
/**
 * Its display name.
 */
label: string, 
/**
 * What values it takes.
 */
kind: ArgumentKind, 
/**
 * The value when none is given; without one the argument must be given.
 */
default: ArgumentValue | null, };

export type TaskView = { 
/**
 * Its id.
 */
id: TaskId, 
/**
 * Its display name.
 */
label: string, 
/**
 * What it does.
 */
description: string, 
/**
 * Its arguments, in the order of the file.
 */
args: Array<ArgumentView>, 
/**
 * Its time limit.
 */
timeout_seconds: number, 
/**
 * The least role that may run it.
 */
role: Role, 
/**
 * Whether interactive users are asked for confirmation.
 */
confirm: boolean, 
/**
 * How many runs of it a machine does at a time.
 */
concurrency: number, 
/**
 * The machines on which it may run: pi-ids, `@tag` or `@all`.
 */
on: Array<string>, 
/**
 * Whether it needs the root runner.
 */
root: boolean, 
/**
 * What its success looks like.
 */
ends: Ends, 
/**
 * When it runs by itself: five fields of crontab(5) and a time zone.
 */
schedule: string | null, };

export type MachineStatus = "online" | "stale" | "offline";

export type Obstacle = "role" | "not_on" | "register_only" | "not_listed" | "no_runner";

export type CannotRun = { 
/**
 * The reason, for programs.
 */
reason: Obstacle, 
/**
 * The reason, and what to do, for people. It follows "reboot cannot run on pi-1: ".
 */
message: string, 
/**
 * The tasks, in the order of the catalogue.
 */
tasks: Array<TaskId>, };

export type Machine = { 
/**
 * Its stable id.
 */
id: PiId, 
/**
 * The label in force: a person's, else the agent's, else the id.
 */
label: string, 
/**
 * How it stands.
 */
status: MachineStatus, 
/**
 * When the controller last received a sample or `online` from it; null if never since its
 * start.
 */
last_seen: Timestamp | null, 
/**
 * Its responsibility.
 */
assignment: string | null, 
/**
 * Its tags.
 */
tags: Array<Tag>, 
/**
 * The cadence that was set here; null is the agent's own.
 */
interval_seconds: number | null, 
/**
 * What it is.
 */
info: Info | null, 
/**
 * Its newest sample.
 */
stats: Sample | null, 
/**
 * CPU per cent of the last minutes, oldest first, one value each ten seconds; null where there
 * was no sample.
 */
recent_cpu_percent: Array<number | null>, 
/**
 * The tasks of the catalogue that cannot run there, by the reason. Every other task can.
 * The feed goes to all dashboards alike, so it leaves out [`Obstacle::Role`]: a browser
 * compares `role` of the task with its own.
 */
cannot_run: Array<CannotRun>, };

export type Run = { 
/**
 * Its id.
 */
id: RunId, 
/**
 * Which task.
 */
task: TaskId, 
/**
 * On which machine.
 */
pi: PiId, 
/**
 * Where it stands.
 */
state: RunState, 
/**
 * Its arguments, defaults filled in.
 */
args: { [key in string]: ArgumentValue }, 
/**
 * Who asked.
 */
requested_by: string, 
/**
 * The id that the requester gave.
 */
request_id: string | null, 
/**
 * The group that it belongs to.
 */
group: RunId | null, 
/**
 * When it was accepted.
 */
created_at: Timestamp, 
/**
 * When it was started.
 */
started_at: Timestamp | null, 
/**
 * When it ended.
 */
finished_at: Timestamp | null, 
/**
 * Its exit code.
 */
exit_code: number | null, 
/**
 * A message for a person.
 */
reason: string | null, 
/**
 * Bytes of output, stored or left out.
 */
output_bytes: number, 
/**
 * Bytes of output that were not stored: dropped while the controller was away, or left out
 * beyond the output limit.
 */
dropped_bytes: number, };

export type Group = { 
/**
 * Its id.
 */
id: RunId, 
/**
 * Which task.
 */
task: TaskId, 
/**
 * What it was aimed at.
 */
target: Target, 
/**
 * Its runs' arguments, defaults filled in.
 */
args: { [key in string]: ArgumentValue }, 
/**
 * How it goes about it.
 */
options: GroupOptions, 
/**
 * Who asked.
 */
requested_by: string, 
/**
 * When it was accepted.
 */
created_at: Timestamp, 
/**
 * How many runs it has.
 */
total: number, 
/**
 * How many runs are in each state; states without a run are left out.
 */
states: { [key in RunState]?: number }, 
/**
 * Why the rest was not started, when it was stopped.
 */
stopped: string | null, };

export type EventKind = "task" | "alert" | "mqtt" | "label" | "access" | "system";

export type Severity = "info" | "warning" | "error";

export type Event = { 
/**
 * The register's own sequence: the order of events, whatever clocks do.
 */
seq: number, 
/**
 * When.
 */
time: Timestamp, 
/**
 * What about.
 */
kind: EventKind, 
/**
 * How much it matters.
 */
severity: Severity, 
/**
 * Which machine.
 */
pi: PiId | null, 
/**
 * Which run.
 */
run: RunId | null, 
/**
 * Whose doing.
 */
account: string | null, 
/**
 * One line for a person.
 */
text: string, };

export type Me = { 
/**
 * The account.
 */
account: AccountName, 
/**
 * Its role.
 */
role: Role, };

export type ControllerView = { 
/**
 * Its version.
 */
version: string, 
/**
 * The topic prefix.
 */
prefix: string, 
/**
 * The port of plain MQTT, when the embedded broker listens.
 */
mqtt_port: number | null, 
/**
 * The external broker, without its password.
 */
external_broker: string | null, 
/**
 * Where a client of the broker connects, ours or another, without credentials:
 * `mqtt://host:1883`.
 */
mqtt_url: string | null, };

export type Pulse = { 
/**
 * Connected MQTT clients.
 */
mqtt_clients: number, 
/**
 * Messages that the broker accepted, in the last seconds.
 */
mqtt_messages_per_second: number, 
/**
 * Connected dashboards.
 */
dashboards: number, };

export type OutputPiece = { 
/**
 * The chunk's number.
 */
seq: number, 
/**
 * Where it came from.
 */
stream: Stream, 
/**
 * The text.
 */
data: string, 
/**
 * Bytes that are missing just before it.
 */
gap_bytes: number, };

export type Completion = { 
/**
 * The text that replaces the word, quoted if it must be.
 */
value: string, 
/**
 * What it is, in a few words.
 */
hint: string, };

export type Change = { "kind": "machine", 
/**
 * All of it; `stats` and `recent_cpu_percent` are left as they were when null or empty.
 */
machine: Machine, } | { "kind": "stats", 
/**
 * Which machine.
 */
pi: PiId, 
/**
 * The sample.
 */
stats: Sample, } | { "kind": "forgotten", 
/**
 * Which machine.
 */
pi: PiId, } | { "kind": "run", 
/**
 * All of it.
 */
run: Run, } | { "kind": "group", 
/**
 * All of it.
 */
group: Group, } | { "kind": "event", 
/**
 * What.
 */
event: Event, } | { "kind": "tasks", 
/**
 * All of it.
 */
tasks: Array<TaskView>, } | { "kind": "pulse", 
/**
 * The numbers.
 */
pulse: Pulse, };

export type Action = { "type": "clear" } | { "type": "theme", 
/**
 * Its name, or null to list them.
 */
name: string | null, };

export type ServerMessage = { "type": "machines", 
/**
 * The next ones, by id.
 */
machines: Array<Machine>, } | { "type": "snapshot", 
/**
 * The controller's clock.
 */
now: Timestamp, 
/**
 * Who is signed in.
 */
me: Me, 
/**
 * The controller.
 */
controller: ControllerView, 
/**
 * All machines, by id; the last of them, if [`ServerMessage::Machines`] had the others.
 */
machines: Array<Machine>, 
/**
 * The newest runs, newest first.
 */
runs: Array<Run>, 
/**
 * The newest groups, newest first.
 */
groups: Array<Group>, 
/**
 * The newest events, newest first.
 */
events: Array<Event>, 
/**
 * The catalogue.
 */
tasks: Array<TaskView>, 
/**
 * Numbers of the broker and the feed.
 */
pulse: Pulse, } | { "type": "changes", 
/**
 * The controller's clock.
 */
now: Timestamp, 
/**
 * In order.
 */
changes: Array<Change>, } | { "type": "pong", 
/**
 * The ping's number.
 */
id: number, } | { "type": "output", 
/**
 * Which run.
 */
run: RunId, 
/**
 * In order.
 */
pieces: Array<OutputPiece>, 
/**
 * Whether the run is final and this was the end.
 */
done: boolean, } | { "type": "unfollowed", 
/**
 * Which run.
 */
run: RunId, 
/**
 * Why, for a person.
 */
reason: string, } | { "type": "text", 
/**
 * The command's number.
 */
id: number, 
/**
 * The text.
 */
text: string, } | { "type": "ask", 
/**
 * The command's number.
 */
id: number, 
/**
 * The question.
 */
question: string, } | { "type": "started", 
/**
 * The command's number.
 */
id: number, 
/**
 * One run for each machine.
 */
runs: Array<RunId>, 
/**
 * Their group.
 */
group: RunId | null, } | { "type": "perform", 
/**
 * The command's number.
 */
id: number, 
/**
 * What.
 */
action: Action, } | { "type": "done", 
/**
 * The command's number.
 */
id: number, 
/**
 * Whether it did what it was asked.
 */
ok: boolean, } | { "type": "completions", 
/**
 * The question's number.
 */
id: number, 
/**
 * Where the completed word begins, in UTF-16 code units of the line.
 */
start: number, 
/**
 * The candidates, best first.
 */
candidates: Array<Completion>, } | { "type": "expired" };

export type ClientMessage = { "type": "session", 
/**
 * The key, as the answer to the sign-in had it.
 */
key: string, } | { "type": "ping", 
/**
 * A number of the browser's.
 */
id: number, } | { "type": "watch", 
/**
 * Which machines.
 */
pis: Array<PiId>, } | { "type": "visible", 
/**
 * Yes or no.
 */
visible: boolean, } | { "type": "follow", 
/**
 * Which run.
 */
run: RunId, 
/**
 * The first chunk.
 */
from: number, } | { "type": "unfollow", 
/**
 * Which run.
 */
run: RunId, } | { "type": "command", 
/**
 * A number of the browser's.
 */
id: number, 
/**
 * The line.
 */
line: string, } | { "type": "confirm", 
/**
 * The command's number.
 */
id: number, 
/**
 * Yes or no.
 */
yes: boolean, } | { "type": "complete", 
/**
 * A number of the browser's.
 */
id: number, 
/**
 * The line.
 */
line: string, 
/**
 * Where the cursor is, in UTF-16 code units.
 */
cursor: number, };

export type Login = { 
/**
 * The code.
 */
code: string, } | { 
/**
 * The token.
 */
token: string, };

export type SignedIn = { 
/**
 * The account.
 */
account: AccountName, 
/**
 * Its role.
 */
role: Role, 
/**
 * The session's second secret, shown once: the header [`SESSION_KEY_HEADER`] of every request
 * beside the cookie.
 */
session_key: string, };

export type SessionView = { 
/**
 * Its name here.
 */
id: string, 
/**
 * Whose.
 */
account: AccountName, 
/**
 * Where it was last used from; behind a reverse proxy, the proxy's address.
 */
address: string | null, 
/**
 * What the browser calls itself.
 */
user_agent: string | null, 
/**
 * When it signed in.
 */
created_at: Timestamp, 
/**
 * When it was last used, to the minute; null is not since it signed in.
 */
last_used: Timestamp | null, 
/**
 * When it ends.
 */
expires_at: Timestamp, 
/**
 * Whether it is the one that asks.
 */
current: boolean, };

export type LoginLink = { 
/**
 * The code; it belongs into the fragment: `<controller_url>/#login=<code>`.
 */
code: string, 
/**
 * The controller's address: `http.public_url`; else its own, by the local network's where it
 * listens on every address.
 */
controller_url: string, 
/**
 * When it stops working.
 */
expires_at: Timestamp, };

export type NewRun = { 
/**
 * Which task.
 */
task: TaskId, 
/**
 * Where: a pi-id, `@tag` or `@all`.
 */
target: Target, 
/**
 * Its arguments.
 */
args: { [key in string]: ArgumentValue }, 
/**
 * Two requests of one account with the same id within a day are one run.
 */
request_id?: string, 
/**
 * How long a run may wait for an offline machine, such as `10m`; `0s` refuses at once.
 */
expires?: string, 
/**
 * How a group goes about it.
 */
group?: GroupOptions, 
/**
 * Says that a person confirmed a task that asks for it.
 */
confirmed: boolean, };

export type GroupOptions = { 
/**
 * How many machines at a time; all at once without it.
 */
at_once?: number, 
/**
 * After how many failures the rest is not started.
 */
stop_after?: number, 
/**
 * Whether the first machine goes alone, and the rest only if it succeeded.
 */
canary: boolean, };

export type AcceptedRuns = { 
/**
 * The group, when the target was one.
 */
group: RunId | null, 
/**
 * One run for each machine.
 */
runs: Array<RunId>, };

export type PatchMachine = { 
/**
 * A new label; empty gives the agent's own back.
 */
label?: string | null, 
/**
 * A new responsibility.
 */
assignment?: string | null, 
/**
 * All of its tags.
 */
tags?: Array<Tag>, 
/**
 * Tags of its that an operator gave, which an administrator lets count for a task's `on`.
 */
confirm_tags?: Array<Tag>, 
/**
 * The cadence in seconds; null gives the agent's own back.
 */
interval?: number | null, };

export type NewAccount = { 
/**
 * Its name.
 */
name: AccountName, 
/**
 * What it may do.
 */
role: Role, 
/**
 * Topic filters that it may publish to, besides its role's.
 */
publish: Array<string>, 
/**
 * Topic filters that it may receive, besides its role's.
 */
subscribe: Array<string>, 
/**
 * How long it lasts, such as `24h` or `30d`; without it, until it is removed.
 */
expires?: string, };

export type NewToken = { 
/**
 * Whose.
 */
name: string, 
/**
 * The token.
 */
token: string, };

export type EnrolmentToken = { 
/**
 * Whose.
 */
name: string, 
/**
 * The token.
 */
token: string, 
/**
 * What that machine's agent is given as `--controller-url`. On another's broker, the word
 * `PASSWORD` stands for what only that broker knows.
 */
controller_url: string, };

export type JoinTokenView = { 
/**
 * `<random>.<fingerprint of the controller's key>`.
 */
token: string, };

export type NewJoinToken = { 
/**
 * Its name.
 */
name: TokenName, 
/**
 * How many machines it lets in; without it, any number.
 */
uses?: number, 
/**
 * How long it works, such as `24h`; without it, until it is removed.
 */
expires?: string, 
/**
 * The tags that machines have which join with it.
 */
tags: Array<Tag>, };

export type JoinTokenInfo = { 
/**
 * Its name; `default` is the one that `GET /api/join-token` shows.
 */
name: TokenName, 
/**
 * When it was made; of the default one, when it was used first or removed.
 */
created_at: Timestamp, 
/**
 * When it ends; null is never.
 */
expires_at: Timestamp | null, 
/**
 * How many more machines it lets in; null is any number.
 */
uses_left: number | null, 
/**
 * How many machines it has let in.
 */
used: number, 
/**
 * When it let one in last.
 */
last_used: Timestamp | null, 
/**
 * The tags of machines that join with it.
 */
tags: Array<Tag>, };

export type Installation = { 
/**
 * The SHA-256 of `/install.sh`, in hexadecimal.
 */
script_sha256: string, 
/**
 * The processors for which `/download/…` has an agent. None where machines connect to
 * another's broker: a command cannot know its credentials.
 */
architectures: Array<string>, 
/**
 * Every processor for which an agent can be built, and whether this controller has that agent.
 */
agents: Array<AgentProgram>, 
/**
 * The controller's folder for agents that it does not have: each is a file
 * `pistat-agent-<architecture>` there.
 */
agents_folder: string, 
/**
 * The controller's address: `http.public_url`; else its own, by the local network's where it
 * listens on every address.
 */
controller_url: string, };

export type AgentProgram = { 
/**
 * The processor, as in `/download/<architecture>` and `packaging/build <architecture>`.
 */
architecture: string, 
/**
 * The machines that it is for, such as `Pi 1, Zero and Zero W`.
 */
boards: string, 
/**
 * Whether this controller has it.
 */
available: boolean, };

export type NewEnrolment = { 
/**
 * Which machine.
 */
pi: PiId, };

export type Enrolment = { 
/**
 * Which machine.
 */
pi: PiId, 
/**
 * The board's serial number, as reported at its enrolment.
 */
serial: string | null, 
/**
 * When it enrolled; null while its single-use token waits.
 */
enrolled_at: Timestamp | null, 
/**
 * Whether one new enrolment is allowed.
 */
open: boolean, };

export type History = { 
/**
 * When the first step begins.
 */
start: Timestamp, 
/**
 * How long a step is.
 */
step_seconds: number, 
/**
 * Busy time of all cores.
 */
cpu_percent: Array<number | null>, 
/**
 * Busy time of each core, in whole per cent: one list for each core, for at most an hour.
 */
cpu_cores_percent: Array<Array<number | null>>, 
/**
 * Memory in use.
 */
memory_percent: Array<number | null>, 
/**
 * Temperature.
 */
temperature_celsius: Array<number | null>, 
/**
 * Bytes read from disks.
 */
disk_read_bytes_per_second: Array<number | null>, 
/**
 * Bytes written to disks.
 */
disk_write_bytes_per_second: Array<number | null>, 
/**
 * Bytes received.
 */
network_rx_bytes_per_second: Array<number | null>, 
/**
 * Bytes sent.
 */
network_tx_bytes_per_second: Array<number | null>, 
/**
 * Whether undervoltage was seen.
 */
undervoltage: Array<boolean | null>, };

export type Column = { 
/**
 * Its unit, for people.
 */
unit: string, 
/**
 * The mean of each step.
 */
mean: Array<number | null>, 
/**
 * The smallest value of each step.
 */
min: Array<number | null>, 
/**
 * The largest value of each step.
 */
max: Array<number | null>, };

export type Origin = "live" | "late";

export type MachineHistory = { 
/**
 * When the first step begins.
 */
start: Timestamp, 
/**
 * How long a step is.
 */
step_seconds: number, 
/**
 * The series by name, such as `cpu_percent`, `cpu_cores_percent[0]` or `disk_used_percent[/]`.
 * Only those of which anything is known.
 */
columns: { [key in string]: Column }, 
/**
 * The stretches of which anything is known: from, to, how it came.
 */
known: Array<[Timestamp, Timestamp, Origin]>, };

export type FleetHistory = { 
/**
 * When the first step begins.
 */
start: Timestamp, 
/**
 * How long a step is.
 */
step_seconds: number, 
/**
 * The machines of which anything is known, by id.
 */
machines: Record<string, Column>, };

export type Problem = { 
/**
 * A URI that names the kind of problem, or `about:blank`.
 */
type: string, 
/**
 * The kind in a few words.
 */
title: string, 
/**
 * The HTTP status.
 */
status: number, 
/**
 * What is wrong and what to do, for a person.
 */
detail: string, };
