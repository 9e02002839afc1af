// What is typed on a new Pi. The controller prints the same line at its start (`controller/src/install.rs`).

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
 * Fetches the script, compares it with its SHA-256, and only then runs it, with the token on standard input: no argument of a process holds it.
 * The file is the caller's own, so that nobody else there can change it in between. In pieces between which a line may be broken.
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

/** For an agent that is there already. */
export function startCommand(joining: Joining): string[] {
  return ["pistat-agent", ...whom(joining), `--token ${shellQuote(joining.token)}`];
}

/** Another's broker as an agent is told of it: `shown` is `mqtt://user:***@host:1883`, and each machine has a user of its own there, named as it is. */
export function brokerUrl(shown: string, pi: string): string {
  const [scheme = "mqtt", rest = ""] = shown.split("://");
  return `${scheme}://${pi}:PASSWORD@${rest.slice(rest.lastIndexOf("@") + 1)}`;
}
