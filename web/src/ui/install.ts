// What is typed on a new Pi. The controller prints the same line at its start
// (`controller/src/install.rs`).

import type { ControllerView } from "../protocol/types";
import { shellQuote } from "./text";

/** Who joins, and where. */
export interface Joining {
  url: string;
  pi: string;
  label: string;
  token: string;
}

function whom({ url, pi, label }: Joining): string[] {
  return [`--controller-url ${shellQuote(url)}`, `--pi-id ${shellQuote(pi)}`, `--label ${shellQuote(label)}`];
}

/**
 * Fetches the script, compares it with its SHA-256, and only then runs it, with the token on
 * standard input: no argument of a process holds it.
 * The file is the caller's own, so that no other user can change it in between. In pieces between
 * which a line may be broken.
 */
export function installCommand(joining: Joining, scriptSha256: string, rootTasks: boolean): string[] {
  return [
    "f=$(mktemp) &&",
    `curl -fsS ${shellQuote(joining.url)}/install.sh -o "$f" &&`,
    `echo "${scriptSha256}  $f" | sha256sum -c - &&`,
    `printf %s ${shellQuote(joining.token)} |`,
    `sudo sh "$f"`,
    ...whom(joining),
    ...(rootTasks ? ["--with-root-tasks"] : []),
  ];
}

/** For an agent that is there already. Others can read its arguments, but not its environment. */
export function startCommand(joining: Joining): string[] {
  return [`PISTAT_AGENT_TOKEN=${shellQuote(joining.token)}`, "pistat-agent", ...whom(joining)];
}

/**
 * Another's broker as an agent is told of it: each machine has a user of its own there, named as it
 * is.
 */
export function brokerUrl(mqttUrl: string, pi: string): string {
  return mqttUrl.replace("://", `://${pi}:PASSWORD@`);
}

/**
 * The controller as another machine reaches it. The page's own address led here, unless it means
 * nothing elsewhere: then what the controller says of itself.
 */
export function controllerUrl(page: string, said: string): string {
  return isLoopback(new URL(page).hostname) ? said : new URL(".", page).href.replace(/\/$/, "");
}

/**
 * The command that subscribes to everything below a topic, with the account that is signed in, in
 * pieces; null where mosquitto_sub cannot connect.
 */
export function listenCommand(
  controller: ControllerView,
  page: string,
  account: string,
  topic: string,
): string[] | null {
  const reached = broker(controller, page, account);
  return reached && ["mosquitto_sub", ...reached, "-v", `-t ${shellQuote(`${topic}/#`)}`];
}

/** The line that publishes a message, likewise. */
export function publishCommand(
  controller: ControllerView,
  page: string,
  account: string,
  topic: string,
  message: string,
): string[] | null {
  const reached = broker(controller, page, account);
  return reached && ["mosquitto_pub", ...reached, `-t ${shellQuote(topic)}`, `-m ${shellQuote(message)}`];
}

/** How the broker is reached from elsewhere. */
function broker(controller: ControllerView, page: string, account: string): string[] | null {
  const [, scheme, said = "", port] = /^(mqtts?):\/\/(.+):(\d+)$/.exec(controller.mqtt_url ?? "") ?? [];
  if (scheme === undefined) {
    return null;
  }
  const own = new URL(page).hostname;
  const host = controller.external_broker !== null || isLoopback(own) ? said : own;
  // Who may connect to another's broker is not known here.
  const user = controller.external_broker === null ? shellQuote(account) : "USER";
  return [
    `-h ${shellQuote(host.replace(/^\[|\]$/g, ""))}`,
    `-p ${port}`,
    ...(scheme === "mqtts" ? ["--tls-use-os-certs"] : []),
    `-u ${user}`,
    "-P '…'",
  ];
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host.endsWith(".localhost") || host.startsWith("127.") || host === "[::1]";
}
