//! Tells two live machines under one pi-id from one that was restarted, moved or renumbered. Pure.
//!
//! Addresses prove nothing: behind one router all are the same, and a machine that roams has many.
//! A boot's id does: once another boot has followed, it never comes back, unless both machines are
//! alive and take the connection from each other.

use std::collections::VecDeque;

use pistat_protocol::status::Info;

/// How many earlier boots are remembered: as many machines under one name as anybody copies a card.
const REMEMBERED: usize = 4;

/// What an agent says where its system tells no boot id.
const UNKNOWN: &str = "unknown";

/// The most that is shown of what a machine says it is.
const SHOWN_CHARACTERS: usize = 40;

/// The boots of one pi-id, the newest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Boots(VecDeque<Boot>);

#[derive(Debug, Clone)]
struct Boot {
    /// What no other boot has.
    id: String,
    /// For people.
    shown: String,
}

impl Boots {
    /// An agent connected and told what it is: both machines, in words, if there are two.
    pub(super) fn heard(&mut self, info: &Info) -> Option<String> {
        let boot = Boot::of(info)?;
        let known = self.0.iter().position(|known| known.id == boot.id);
        let other = self.0.front().filter(|_| known.is_some_and(|index| index > 0)).map(|other| other.shown.clone());
        if let Some(index) = known {
            self.0.remove(index);
        }
        let twins = other.map(|other| format!("{other} and {}", boot.shown));
        self.0.push_front(boot);
        self.0.truncate(REMEMBERED);
        twins
    }
}

impl Boot {
    /// Without a boot id the board's serial number stands for it: better than nothing where cards
    /// are copied.
    fn of(info: &Info) -> Option<Self> {
        let boot_id = Some(&info.boot_id).filter(|id| *id != UNKNOWN && !id.is_empty());
        let id = boot_id.or(info.serial.as_ref())?;
        let serial = info.serial.as_ref().map(|serial| format!("serial {}", plain(serial)));
        let boot = boot_id.map(|boot| format!("boot {}", plain(boot)));
        let shown = serial.into_iter().chain(boot).collect::<Vec<_>>().join(", ");
        Some(Self { id: id.clone(), shown: format!("one ({shown})") })
    }
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(serial: Option<&str>, boot_id: &str) -> Info {
        let json = format!(
            r#"{{"agent_version":"0.1.0","boot_id":"{boot_id}","session":"{}","execution_policy":"controller","runner":false,"interval_seconds":5}}"#,
            "a".repeat(32)
        );
        let mut info: Info = serde_json::from_str(&json).unwrap();
        info.serial = serial.map(str::to_owned);
        info
    }

    #[test]
    fn a_boot_that_comes_back_after_another_is_a_second_machine() {
        // Letters are boots in the order in which they connect; a mark says where somebody is told.
        let cases = [
            ("restarts of the agent", "aaaa", "...."),
            ("reboots", "abcdefg", "......."),
            ("two machines", "ababab", "..!!!!"),
            ("two machines, one of which restarts its agent", "aabbaab", "....!.!"),
            ("three machines", "abcabca", "...!!!!"),
            ("a twin that is gone after it was told", "abaaac", "..!..."),
        ];
        for (what, boots, told) in cases {
            let mut heard = Boots::default();
            let marks: String = boots
                .chars()
                .map(|boot| heard.heard(&info(Some("s"), &boot.to_string())).map_or('.', |_| '!'))
                .collect();
            assert_eq!(marks, told, "{what}");
            assert!(heard.0.len() <= REMEMBERED);
        }
    }

    #[test]
    fn without_a_boot_id_the_serial_number_counts_and_without_both_nothing_does() {
        let mut heard = Boots::default();
        let mut hear = |serial, boot| heard.heard(&info(serial, boot));
        assert_eq!(hear(None, UNKNOWN), None);
        assert_eq!(hear(Some("s1"), UNKNOWN), None);
        assert_eq!(hear(Some("s2"), UNKNOWN), None);
        assert_eq!(hear(None, UNKNOWN), None);
        assert_eq!(hear(Some("s1"), UNKNOWN).as_deref(), Some("one (serial s2) and one (serial s1)"));
        assert_eq!(hear(None, "b\\u001b1"), None);
        assert_eq!(hear(Some("s1"), UNKNOWN).as_deref(), Some("one (boot b1) and one (serial s1)"));
    }
}
