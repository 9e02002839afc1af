//! The agent's own word on an order. It comes last and wins: a valid signature is not enough.

use pistat_protocol::{id::TaskId, order::ExecuteOrder};

use crate::options::Policy;

/// Whether tasks that need root can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// The root runner is there, or this is it.
    Available,
    /// It is not installed.
    NotInstalled,
    /// It is installed and did not answer.
    Silent,
}

/// Checks an order against the machine's own policy.
///
/// # Errors
/// A sentence for the person who asked.
pub(crate) fn check(policy: &Policy, order: &ExecuteOrder, root: Root) -> Result<(), String> {
    check_policy(policy, order)?;
    if order.argv.first().is_none_or(String::is_empty) {
        return Err("the order names no program".into());
    }
    if order.argv.iter().any(|word| word.contains('\0')) {
        return Err("the order's command has a NUL character, which no program can be given".into());
    }
    match root {
        Root::NotInstalled if order.root => Err(not_installed(&order.task)),
        Root::Silent if order.root => Err(format!(
            "the task `{}` needs root, and the root runner of this machine does not answer: `systemctl status \
             pistat-runner.socket` and `journalctl -u 'pistat-runner@*'` there say why",
            order.task
        )),
        _ => Ok(()),
    }
}

/// What to do where there is no root runner.
pub(crate) fn not_installed(task: &TaskId) -> String {
    format!(
        "the task `{task}` needs root, and the root runner is not installed on this machine: install the package \
         pistat-runner there, or run its install script again with --with-root-tasks"
    )
}

fn check_policy(policy: &Policy, order: &ExecuteOrder) -> Result<(), String> {
    let task = &order.task;
    match policy {
        Policy::Controller => Ok(()),
        Policy::Never => Err("this machine's agent was started with --register-only: it runs no tasks".into()),
        Policy::Listed(tasks) => match tasks.get(task) {
            None => Err(format!("the task `{task}` is not among those that this machine's own configuration lists")),
            Some(Some(command)) if *command != order.argv => Err(format!(
                "the command of the task `{task}` is not the one that this machine's own configuration gives for it"
            )),
            Some(_) => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pistat_protocol::{id::RunId, status::Session};
    use pistat_testkit::payload;

    use super::*;

    fn order(task: &str, argv: &[&str], root: bool) -> ExecuteOrder {
        let (pi, session) = ("pi-1".parse().unwrap(), Session::from_random([1; 16]));
        let order = payload::order(&pi, RunId::from_parts(1, [1; 10]), &session, argv);
        ExecuteOrder { task: task.parse().unwrap(), root, ..order }
    }

    #[test]
    fn the_machines_own_policy_wins() {
        let listed = Policy::Listed(BTreeMap::from([
            ("uptime".parse().unwrap(), None),
            ("top".parse().unwrap(), Some(vec!["top".to_owned(), "-b".to_owned()])),
        ]));
        let cases = [
            (&Policy::Controller, order("anything", &["x"], false), None),
            (&Policy::Never, order("uptime", &["uptime"], false), Some("--register-only")),
            (&listed, order("uptime", &["whatever", "-x"], false), None),
            (&listed, order("top", &["top", "-b"], false), None),
            (&listed, order("top", &["top"], false), Some("not the one")),
            (&listed, order("memory", &["free"], false), Some("not among")),
            (&Policy::Controller, order("reboot", &["systemctl", "reboot"], true), Some("root runner")),
            (&Policy::Controller, order("nothing", &[], false), Some("names no program")),
            (&Policy::Controller, order("nul", &["a", "b\0c"], false), Some("NUL")),
        ];
        for (policy, order, refusal) in cases {
            match (check(policy, &order, Root::NotInstalled), refusal) {
                (Ok(()), None) => {}
                (Err(sentence), Some(part)) => assert!(sentence.contains(part), "{sentence}"),
                (result, _) => panic!("{}: {result:?}", order.task),
            }
        }
    }

    #[test]
    fn with_the_runner_a_root_task_is_allowed() {
        let reboot = order("reboot", &["reboot"], true);
        assert_eq!(check(&Policy::Controller, &reboot, Root::Available), Ok(()));
        let sentence = check(&Policy::Controller, &reboot, Root::Silent).unwrap_err();
        assert!(sentence.contains("pistat-runner.socket"), "{sentence}");
    }
}
