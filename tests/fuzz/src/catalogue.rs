//! A catalogue with every kind of argument, and a second opinion on what it describes, written
//! without the code that it judges.

use pistat_protocol::task::{ArgumentValue, Arguments};

/// The catalogue.
pub const TEXT: &str = r#"
[task.every]
command = ["every", "--choice={c}", "{i}", "pre{n}post", "{b}", "{t}", "{d}", "literal {{i}}", "{m}"]
args.c = { choices = ["ssh", "cron"] }
args.i = { integer = { min = -3, max = 1000 }, default = 100, dash = true }
args.n = { number = { min = 0, max = 2.5 }, default = 1 }
args.b = { boolean = true, default = false }
args.t = { pattern = "[a-z ]*", max_length = 8 }
args.d = { pattern = ".*", max_length = 4, dash = true, default = "x" }
args.m = { machine = true }

[task.plain]
command = ["plain", "{t}"]
args.t = { pattern = ".*", max_length = 20 }

[task.admins]
command = ["admins"]
role = "admin"

[task.elsewhere]
command = ["elsewhere"]
on = ["@camera"]
"#;

/// The machine that everything is asked for, and the only one that is known.
pub const MACHINE: &str = "pi-1";

/// What `command` breaks, if it is approved for an operator on [`MACHINE`] with these arguments.
///
/// # Errors
/// A sentence about what the catalogue does not describe.
pub fn judge(task: &str, args: &Arguments, command: &[String]) -> Result<(), String> {
    let text = command.iter().map(String::as_str).collect::<Vec<_>>();
    let holds = match (task, &text[..]) {
        ("every", ["every", choice, integer, number, boolean, pattern, dashed, "literal {i}", machine]) => {
            judge_every([choice, integer, number, boolean, pattern, dashed, machine])
        }
        ("plain", ["plain", value]) => {
            is_value(value, 20) && args.get("t").is_some_and(|given| given.to_string() == *value)
        }
        _ => false,
    };
    let known = ["c", "i", "n", "b", "t", "d", "m"];
    let given = args.keys().all(|name| known.contains(&name.as_str()));
    if holds && given { Ok(()) } else { Err(format!("{task} with {args:?} is not {command:?}")) }
}

fn judge_every([choice, integer, number, boolean, pattern, dashed, machine]: [&str; 7]) -> bool {
    let number = number.strip_prefix("pre").and_then(|rest| rest.strip_suffix("post"));
    ["--choice=ssh", "--choice=cron"].contains(&choice)
        && integer.parse::<i64>().is_ok_and(|n| (-3..=1000).contains(&n) && n.to_string() == integer)
        && number.and_then(|text| text.parse::<f64>().ok()).is_some_and(|n| (0.0..=2.5).contains(&n))
        && ["true", "false"].contains(&boolean)
        && pattern.len() <= 8
        && pattern.bytes().all(|b| b.is_ascii_lowercase() || b == b' ')
        && dashed.chars().count() <= 4
        && !dashed.contains(char::is_control)
        && machine == MACHINE
}

fn is_value(value: &str, longest: usize) -> bool {
    value.chars().count() <= longest && !value.contains(char::is_control) && !value.starts_with('-')
}

/// Arguments as JSON would carry them, out of any bytes.
pub fn arguments(data: &[u8]) -> Arguments {
    if let Ok(args) = serde_json::from_slice::<Arguments>(data) {
        return args;
    }
    // Lines of name=value, each value a text, a number or a truth value.
    let text = String::from_utf8_lossy(data);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value_of(value))).collect()
}

fn value_of(text: &str) -> ArgumentValue {
    match (text.parse(), text.parse(), text.parse()) {
        (Ok(boolean), ..) => ArgumentValue::Boolean(boolean),
        (_, Ok(integer), _) => ArgumentValue::Integer(integer),
        (.., Ok(number)) => ArgumentValue::Number(number),
        _ => ArgumentValue::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_opinion_tells_right_from_wrong() {
        let args = arguments(b"t=a");
        let words = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        let right = "every|--choice=ssh|100|pre1post|false|a b|-|literal {i}|pi-1";
        assert!(judge("every", &args, &words(right)).is_ok());
        for (from, to) in [
            ("ssh", "id"),
            ("|100|", "|1001|"),
            ("pre1", "pre3"),
            ("a b", "a;b"),
            ("pi-1", "pi-2"),
            ("every|", "every|sh|"),
        ] {
            assert!(judge("every", &args, &words(&right.replace(from, to))).is_err(), "{to}");
        }
        assert!(judge("admins", &args, &words("admins")).is_err());
    }
}
