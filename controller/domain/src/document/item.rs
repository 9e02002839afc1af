//! A TOML text as a tree that remembers where each value stands, so that every problem can name its
//! line.

use std::sync::Arc;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Problem;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, the environment variable or the flag.
    pub file: Arc<str>,
    /// The line in the file, from 1; `None` outside of files.
    pub line: Option<usize>,
}

impl Place {
    /// A place that is not a line of a file: an environment variable, a flag, a whole file.
    pub fn named(name: &str) -> Self {
        Self { file: name.into(), line: None }
    }

    /// Something that is wrong here.
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem { file: self.file.to_string(), line: self.line, message: message.into() }
    }
}

/// A value and its place: for a table's entry, the line of its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Where it was written.
    pub place: Place,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A string.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A float.
    Number(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// An array.
    List(Vec<Item>),
    /// In the order of the file.
    Table(Vec<(String, Item)>),
    /// What no key of ours takes, by its name in TOML.
    Other(&'static str),
}

impl Kind {
    /// The kind's name in a sentence.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Number(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }
}

/// The tree of a TOML text, as far as it could be read, and everything that is wrong with its
/// grammar.
pub fn parse_toml(text: &str, file: &str) -> (Item, Vec<Problem>) {
    let reader = Reader { text, file: file.into() };
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<_> = errors.iter().map(|error| reader.grammar_problem(error)).collect();
    problems.sort();
    let root = Item { place: Place { file: file.into(), line: None }, kind: reader.table(table.into_inner(), 0) };
    (root, problems)
}

/// How deep values may be nested: deeper than any key of ours. Of a text that is not TOML, the
/// `toml` crate makes tables thousands deep, and each level is a call on the stack.
const MAX_DEPTH: usize = 16;

struct Reader<'t> {
    text: &'t str,
    file: Arc<str>,
}

impl Reader<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        let line = before.split(|&byte| byte == b'\n').count();
        Place { file: self.file.clone(), line: Some(line) }
    }

    fn grammar_problem(&self, error: &toml::de::Error) -> Problem {
        let place = self.place(error.span().map_or(0, |span| span.start));
        place.problem(format!("this is not TOML: {}", error.message().replace('\n', ", ")))
    }

    fn table(&self, table: DeTable<'_>, depth: usize) -> Kind {
        let mut entries: Vec<_> = table.into_iter().collect();
        // The file's order is what people see in lists and forms.
        entries.sort_by_key(|(key, _)| key.span().start);
        let entry = |(key, value): (Spanned<_>, Spanned<DeValue<'_>>)| {
            let place = self.place(key.span().start);
            let name: std::borrow::Cow<'_, str> = key.into_inner();
            (name.into_owned(), Item { place, kind: self.kind(value.into_inner(), depth + 1) })
        };
        Kind::Table(entries.into_iter().map(entry).collect())
    }

    fn kind(&self, value: DeValue<'_>, depth: usize) -> Kind {
        match value {
            DeValue::Array(_) | DeValue::Table(_) if depth > MAX_DEPTH => Kind::Other("a value nested too deeply"),
            DeValue::String(text) => Kind::Text(text.into_owned()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Kind::Other("a number too large for 64 bits"), Kind::Integer),
            DeValue::Float(number) => number.as_str().parse().map_or(Kind::Other("an unreadable number"), Kind::Number),
            DeValue::Boolean(value) => Kind::Boolean(value),
            DeValue::Datetime(_) => Kind::Other("a date"),
            DeValue::Array(values) => {
                Kind::List(values.into_iter().map(|value| self.element(value, depth + 1)).collect())
            }
            DeValue::Table(table) => self.table(table, depth),
        }
    }

    fn element(&self, value: Spanned<DeValue<'_>>, depth: usize) -> Item {
        let place = self.place(value.span().start);
        Item { place, kind: self.kind(value.into_inner(), depth) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line_and_tables_keep_their_order() {
        let (root, problems) = parse_toml("z = 1\n\n[a]\ny = [\n  'one',\n  'two',\n]\nb.c = 0x10\n", "f.toml");
        assert!(problems.is_empty());
        let Kind::Table(entries) = root.kind else { panic!("a table") };
        assert_eq!(entries.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["z", "a"]);
        assert_eq!((entries[0].1.place.line, entries[1].1.place.line), (Some(1), Some(3)));
        let Kind::Table(a) = &entries[1].1.kind else { panic!("a table") };
        let Kind::List(list) = &a[0].1.kind else { panic!("a list") };
        assert_eq!((a[0].1.place.line, list[1].place.line), (Some(4), Some(6)));
        let Kind::Table(b) = &a[1].1.kind else { panic!("a table") };
        assert_eq!((b[0].1.place.line, &b[0].1.kind), (Some(8), &Kind::Integer(16)));
    }

    #[test]
    fn several_errors_of_grammar_are_reported_at_once() {
        let (_, problems) = parse_toml("a = \nb = 2\nc = [1\n", "f.toml");
        assert!(problems.len() >= 2, "{problems:?}");
        assert_eq!((problems[0].file.as_str(), problems[0].line), ("f.toml", Some(1)));
    }

    #[test]
    fn what_is_nested_too_deeply_is_not_read() {
        fn depth(item: &Item) -> usize {
            match &item.kind {
                Kind::Table(entries) => 1 + entries.iter().map(|(_, item)| depth(item)).max().unwrap_or(0),
                Kind::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
                _ => 0,
            }
        }
        let text = format!("{}a = {}{}", "a.".repeat(20), "[".repeat(20), "]".repeat(20));
        let (root, problems) = parse_toml(&text, "f.toml");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(depth(&root), MAX_DEPTH + 1);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            parse_toml(&text, "f.toml");
        }
    }
}
