//! A command as the catalogue writes it: an argv whose elements may hold `{name}`.
//!
//! Each element stays one element, whatever the arguments are, and its literal parts stay as they
//! are.

use std::collections::BTreeMap;

/// An argv with places for arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command(Vec<Element>);

/// One element of an argv.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Argument(String),
}

impl Command {
    pub(super) fn new(elements: Vec<Element>) -> Self {
        Self(elements)
    }

    /// The names of the arguments that it takes.
    pub(super) fn arguments(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(Element::arguments)
    }

    /// The argv for these values. Every argument has a value: the catalogue checked that they are
    /// the same names.
    pub(super) fn argv(&self, values: &BTreeMap<&str, String>) -> Vec<String> {
        self.0.iter().map(|element| element.fill(values)).collect()
    }
}

impl Element {
    /// Reads one element; `{{` and `}}` stand for braces.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("a command cannot hold a NUL".into());
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let (name, after) = placeholder(brace, after, text)?;
            parts.extend(Some(std::mem::take(&mut literal)).filter(|text| !text.is_empty()).map(Part::Literal));
            parts.push(Part::Argument(name.to_owned()));
            rest = after;
        }
        literal.push_str(rest);
        parts.extend(Some(literal).filter(|text| !text.is_empty()).map(Part::Literal));
        Ok(Self(parts))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn arguments(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Argument(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    fn fill(&self, values: &BTreeMap<&str, String>) -> String {
        fn part<'v>(part: &'v Part, values: &'v BTreeMap<&str, String>) -> &'v str {
            match part {
                Part::Literal(text) => text,
                Part::Argument(name) => values.get(name.as_str()).map_or("", String::as_str),
            }
        }
        self.0.iter().map(|element| part(element, values)).collect()
    }

    #[cfg(test)]
    pub(super) fn matches(&self, text: &str) -> bool {
        let part = |part: &Part| match part {
            Part::Literal(text) => regex::escape(text),
            Part::Argument(_) => "(?s:.*)".to_owned(),
        };
        let pattern: String = self.0.iter().map(part).collect();
        regex::Regex::new(&format!(r"\A{pattern}\z")).unwrap().is_match(text)
    }
}

#[cfg(test)]
impl Command {
    /// Whether this argv is one that the command describes: as many elements, literal parts
    /// unchanged.
    pub(super) fn describes(&self, argv: &[String]) -> bool {
        self.0.len() == argv.len() && self.0.iter().zip(argv).all(|(element, text)| element.matches(text))
    }
}

fn placeholder<'t>(brace: &str, after: &'t str, text: &str) -> Result<(&'t str, &'t str), String> {
    let name = if brace == "{" { after.split_once('}') } else { None };
    name.filter(|(name, _)| is_argument_name(name))
        .ok_or_else(|| format!("{text:?} has a brace that is no {{argument}}; a brace itself is written {{{{ or }}}}"))
}

/// Whether a text can name an argument: a lower-case letter, then lower-case letters, digits, `-`
/// or `_`.
pub(super) fn is_argument_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_braces_can_be_written() {
        for (text, filled) in [
            ("plain", "plain"),
            ("{unit}", "ssh"),
            ("--unit={unit}.service", "--unit=ssh.service"),
            ("{unit}{lines}", "ssh100"),
            ("{{print $1}}", "{print $1}"),
            ("", ""),
        ] {
            let values = BTreeMap::from([("unit", "ssh".to_owned()), ("lines", "100".to_owned())]);
            assert_eq!(Element::parse(text).unwrap().fill(&values), filled, "{text}");
        }
    }

    #[test]
    fn stray_braces_are_refused() {
        for bad in ["{", "}", "{}", "{a b}", "{print $1}", "{Unit}", "a}b", "{{a}", "\0"] {
            assert!(Element::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = Element::parse(&text);
        }
    }
}
