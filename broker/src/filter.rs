//! Topics and topic filters as text: validity, matching, and what two filters have in common.
//!
//! MQTT 5, section 4.7 (the same in 3.1.1). Nothing here knows what a topic is about.

/// The prefix of a shared subscription, `$share/<group>/<filter>`.
const SHARE: &str = "$share/";

/// Whether a client may publish on this topic as far as its form goes: not empty, no wildcard,
/// plain text, within bounds.
pub(crate) fn is_valid_topic(topic: &str, max_bytes: usize, max_levels: usize) -> bool {
    is_bounded(topic, max_bytes, max_levels) && !topic.contains(['+', '#']) && is_plain(topic)
}

/// Whether a text holds no control characters (U+0000 to U+001F, U+007F to U+009F) and no
/// non-characters of Unicode.
///
/// MQTT 5, section 1.5.4 allows a receiver to refuse these, and the clients of mosquitto end their
/// connection when they are sent one: a client that could publish such a topic would disconnect
/// every subscriber.
pub(crate) fn is_plain(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() && !is_non_character(c))
}

fn is_non_character(c: char) -> bool {
    let code = u32::from(c);
    matches!(code, 0xFDD0..=0xFDEF) || code & 0xFFFE == 0xFFFE
}

/// Whether this is a topic filter by its form, without a `$share` prefix.
pub(crate) fn is_valid_filter(filter: &str, max_bytes: usize, max_levels: usize) -> bool {
    is_bounded(filter, max_bytes, max_levels) && is_plain(filter) && wildcards_stand_alone(filter)
}

fn is_bounded(text: &str, max_bytes: usize, max_levels: usize) -> bool {
    !text.is_empty() && text.len() <= max_bytes && text.bytes().filter(|&b| b == b'/').count() < max_levels
}

fn wildcards_stand_alone(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let valid = match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            _ => !level.contains(['+', '#']),
        };
        if !valid {
            return false;
        }
    }
    true
}

/// A filter as a client subscribes to it: `$share/<group>/<filter>` taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParsedFilter<'a> {
    /// The group of a shared subscription.
    pub(crate) group: Option<&'a str>,
    /// The filter proper.
    pub(crate) filter: &'a str,
}

/// Takes a subscription's text apart; `None` when it is malformed (a group without a name or with a
/// wildcard, no filter).
pub(crate) fn parse(text: &str, max_bytes: usize, max_levels: usize) -> Option<ParsedFilter<'_>> {
    let parsed = match text.strip_prefix(SHARE) {
        None => ParsedFilter { group: None, filter: text },
        Some(rest) => {
            let (group, filter) = rest.split_once('/')?;
            if group.is_empty() || group.contains(['+', '#']) || !is_plain(group) {
                return None;
            }
            ParsedFilter { group: Some(group), filter }
        }
    };
    is_valid_filter(parsed.filter, max_bytes, max_levels).then_some(parsed)
}

/// Whether a topic matches a filter. Wildcards in the first level do not match topics that begin
/// with `$`.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && !filter.starts_with('$') {
        return false;
    }
    let mut topic_levels = topic.split('/');
    for level in filter.split('/') {
        match (level, topic_levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(topic_level)) if level == topic_level => {}
            _ => return false,
        }
    }
    topic_levels.next().is_none()
}

/// The filter that matches exactly what both match; `None` when nothing can match both.
pub(crate) fn meet(a: &str, b: &str) -> Option<String> {
    let begins_with_wildcard = |filter: &str| filter.starts_with(['+', '#']);
    if (a.starts_with('$') && begins_with_wildcard(b)) || (b.starts_with('$') && begins_with_wildcard(a)) {
        return None;
    }
    let (mut left, mut right) = (a.split('/'), b.split('/'));
    let mut common: Vec<&str> = Vec::new();
    loop {
        match (left.next(), right.next()) {
            (None | Some("#"), None) | (None, Some("#")) => break,
            (Some("#"), Some(level)) => {
                common.push(level);
                common.extend(right);
                break;
            }
            (Some(level), Some("#")) => {
                common.push(level);
                common.extend(left);
                break;
            }
            (Some("+"), Some(level)) | (Some(level), Some("+")) => common.push(level),
            (Some(x), Some(y)) if x == y => common.push(x),
            _ => return None,
        }
    }
    Some(common.join("/"))
}

/// Whether every topic that `narrow` matches is matched by `wide` too.
pub(crate) fn covers(wide: &str, narrow: &str) -> bool {
    meet(wide, narrow).is_some_and(|common| common == narrow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching_follows_the_specification() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor", "$SYS/monitor", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/monitor/+", "$SYS/monitor/clients", true),
            ("a", "a/b", false),
            ("a/b", "a", false),
            ("é/+", "é/x", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn malformed_filters_and_topics_are_found() {
        for bad in ["", "a#", "#/a", "a/#/b", "a+", "+a", "a/b+/c", "\0", "a/\0", "a/b/c/d/e"] {
            assert!(!is_valid_filter(bad, 64, 4), "{bad:?}");
        }
        for good in ["#", "+", "/", "a//b", "+/+", "a/#", "é/x"] {
            assert!(is_valid_filter(good, 64, 4), "{good:?}");
        }
        for bad in ["", "a/+", "#", "a\0", "12345"] {
            assert!(!is_valid_topic(bad, 4, 4), "{bad:?}");
        }
    }

    #[test]
    fn control_characters_and_non_characters_are_in_no_topic_and_no_filter() {
        let bad =
            ['\u{1}', '\u{1f}', '\u{7f}', '\u{9f}', '\u{fdd0}', '\u{fdef}', '\u{fffe}', '\u{1ffff}', '\u{10fffe}'];
        for bad in bad {
            assert!(!is_valid_topic(&format!("a/{bad}"), 64, 4), "{bad:?}");
            assert!(!is_valid_filter(&format!("+/{bad}/#"), 64, 4), "{bad:?}");
            assert_eq!(parse(&format!("$share/{bad}/a"), 64, 4), None, "{bad:?}");
        }
        for good in [' ', '~', '\u{a0}', '\u{fdcf}', '\u{fdf0}', '\u{feff}', '\u{fffd}', '\u{10fffd}'] {
            assert!(is_valid_topic(&format!("a/{good}"), 64, 4), "{good:?}");
            assert!(is_valid_filter(&format!("+/{good}/#"), 64, 4), "{good:?}");
        }
    }

    #[test]
    fn shared_subscriptions_are_taken_apart() {
        assert_eq!(parse("$share/g/a/b", 64, 8), Some(ParsedFilter { group: Some("g"), filter: "a/b" }));
        assert_eq!(parse("$share/g/#", 64, 8), Some(ParsedFilter { group: Some("g"), filter: "#" }));
        for bad in ["$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a"] {
            assert_eq!(parse(bad, 64, 8), None, "{bad:?}");
        }
    }

    #[test]
    fn what_two_filters_have_in_common_is_what_both_match() {
        let levels = ["a", "b", "+"];
        let mut filters = vec!["#".to_owned(), "$a/#".to_owned(), "$a/b".to_owned(), "$a/+".to_owned()];
        for x in levels {
            filters.push(x.to_owned());
            filters.push(format!("{x}/#"));
            for y in levels {
                filters.push(format!("{x}/{y}"));
                filters.push(format!("{x}/{y}/#"));
            }
        }
        let topics = [
            "a", "b", "c", "a/a", "a/b", "a/c", "b/a", "b/b", "c/c", "a/b/c", "b/a/c", "a/b/c/d", "$a", "$a/b", "$a/c",
            "$a/b/c",
        ];
        for a in &filters {
            for b in &filters {
                let common = meet(a, b);
                for topic in topics {
                    let both = matches(a, topic) && matches(b, topic);
                    assert_eq!(
                        common.as_deref().is_some_and(|c| matches(c, topic)),
                        both,
                        "{a} {b} {common:?} {topic}"
                    );
                }
                if covers(a, b) {
                    assert!(topics.iter().all(|t| !matches(b, t) || matches(a, t)), "{a} {b}");
                }
            }
        }
    }
}
