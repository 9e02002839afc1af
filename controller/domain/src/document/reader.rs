//! Reading a table key by key: what is missing, of another kind, out of range or unknown becomes a
//! problem, and reading goes on.

use std::{cell::RefCell, fmt::Display, ops::RangeInclusive};

use super::{
    Problem,
    item::{Item, Kind, Place},
};

/// The problems found so far, and what is no problem but worth a line in the log.
#[derive(Debug, Default)]
pub struct Problems {
    problems: RefCell<Vec<Problem>>,
    notices: RefCell<Vec<Problem>>,
}

impl Problems {
    /// Adds one.
    pub fn push(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Takes the notices so far, in the order of their places.
    pub fn take_notices(&self) -> Vec<Problem> {
        let mut notices = self.notices.take();
        notices.sort();
        notices
    }

    /// `value` when nothing is wrong; else every problem, in the order of the places.
    ///
    /// # Errors
    /// Something is wrong.
    pub fn into_result<T>(self, value: Option<T>) -> Result<T, Vec<Problem>> {
        let problems = self.into_list();
        value.filter(|_| problems.is_empty()).ok_or(problems)
    }

    /// Every problem, in the order of the places.
    pub fn into_list(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems.dedup();
        problems
    }
}

impl From<Vec<Problem>> for Problems {
    fn from(problems: Vec<Problem>) -> Self {
        Self { problems: RefCell::new(problems), ..Self::default() }
    }
}

/// A table that is being read. [`Section::finish`] reports what nobody asked for.
pub struct Section<'p> {
    name: String,
    place: Place,
    entries: Vec<(String, Item)>,
    asked: Vec<&'static str>,
    given: Vec<&'static str>,
    problems: &'p Problems,
}

impl<'p> Section<'p> {
    /// The table of an item; `name` is how people write it, empty for a whole file.
    pub fn new(name: &str, item: Item, problems: &'p Problems) -> Option<Self> {
        let place = place_of(&item);
        match item.kind {
            Kind::Table(entries) => {
                Some(Self { name: name.into(), place, entries, asked: Vec::new(), given: Vec::new(), problems })
            }
            other => {
                problems.push(place.problem(format!("{name} must be a table, not {}", other.name())));
                None
            }
        }
    }

    /// How people write this table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reports something about the table as a whole.
    pub fn problem(&self, message: impl Into<String>) {
        self.problems.push(self.place.problem(message));
    }

    /// Reports something about another place.
    pub fn problem_at(&self, place: &Place, message: &str) {
        self.problems.push(place.problem(message));
    }

    /// Where the key's value was written; the table's own place without one.
    pub fn place_of(&self, key: &str) -> Place {
        let entry = self.entries.iter().find(|(name, _)| name == key);
        entry.map_or_else(|| self.place.clone(), |(_, item)| place_of(item))
    }

    /// Whether the key is there, asked for or not.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name == key)
    }

    /// A table inside this one whose key is not ours, and which has been taken already.
    pub fn child(&self, key: &str, item: Item) -> Option<Section<'p>> {
        Section::new(&format!("{}.{key}", self.name), item, self.problems)
    }

    /// Whether a key that was asked for had a value, right or wrong.
    pub fn was_given(&self, key: &str) -> bool {
        self.given.contains(&key)
    }

    /// The raw value of a key, which counts as known from now on.
    pub fn take(&mut self, key: &'static str) -> Option<Item> {
        self.asked.push(key);
        let index = self.entries.iter().position(|(name, _)| name == key)?;
        self.given.push(key);
        Some(self.entries.remove(index).1)
    }

    /// Gives the value of a key of earlier versions to the keys that replace it, where they have
    /// none of their own. Without such keys it has no effect. Either way there is a notice.
    pub fn replaced(&mut self, former: &str, keys: &[&str]) {
        let Some(index) = self.entries.iter().position(|(name, _)| name == former) else { return };
        let (_, item) = self.entries.remove(index);
        let what = match keys {
            [] => "has no effect since 0.2".to_owned(),
            _ => format!("is called {} since 0.2, and the old name is accepted until 0.3", keys.join(", ")),
        };
        let notice = place_of(&item).problem(format!("{former} in [{}] {what}", self.name));
        self.problems.notices.borrow_mut().push(notice);
        for key in keys.iter().filter(|key| !self.has(key)).collect::<Vec<_>>() {
            self.entries.push(((*key).to_owned(), item.clone()));
        }
    }

    /// Every entry, whatever its key.
    pub fn take_all(&mut self) -> Vec<(String, Item)> {
        std::mem::take(&mut self.entries)
    }

    /// A text that `parse` understands.
    pub fn parsed<T, E: Display>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let item = self.take(key)?;
        let text = self.text_of(key, &item)?;
        parse(&text).map_err(|error| self.problems.push(item.place.problem(format!("{key}: {error}")))).ok()
    }

    /// Any text.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.parsed(key, |text| Ok::<_, String>(text.to_owned()))
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let item = self.take(key)?;
        match (&item.kind, item.place.line) {
            (Kind::Boolean(value), _) => Some(*value),
            // The environment has only texts.
            (Kind::Text(text), None) if matches!(text.as_str(), "true" | "false") => Some(text == "true"),
            _ => self.wrong_kind(key, &item, "true or false"),
        }
    }

    /// A whole number within a range.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let item = self.take(key)?;
        let value = match (&item.kind, item.place.line) {
            (Kind::Integer(value), _) => *value,
            (Kind::Text(text), None) if text.parse::<i64>().is_ok() => text.parse().ok()?,
            _ => return self.wrong_kind(key, &item, "a whole number"),
        };
        if range.contains(&value) {
            return Some(value);
        }
        let message = format!("{key}: {value} is out of range: it is {} to {}", range.start(), range.end());
        self.problems.push(item.place.problem(message));
        None
    }

    /// A decimal number that is finite.
    pub fn number(&mut self, key: &'static str) -> Option<f64> {
        let item = self.take(key)?;
        match item.kind {
            Kind::Number(value) if value.is_finite() => Some(value),
            #[expect(
                clippy::cast_precision_loss,
                reason = "bounds beyond 2^53 have no use that their last digits matter to"
            )]
            Kind::Integer(value) => Some(value as f64),
            _ => self.wrong_kind(key, &item, "a number"),
        }
    }

    /// A list of texts, each of which `parse` understands; from the environment, separated by
    /// commas.
    pub fn list<T, E: Display>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, E>) -> Option<Vec<T>> {
        let item = self.take(key)?;
        let elements = match item.kind {
            Kind::List(elements) => elements,
            Kind::Text(ref text) if item.place.line.is_none() => comma_separated(text, &item.place),
            _ => return self.wrong_kind(key, &item, "a list of texts, such as [\"a\", \"b\"]"),
        };
        let element = |item: &Item| {
            let text = self.text_of(key, item)?;
            parse(&text).map_err(|error| self.problems.push(item.place.problem(format!("{key}: {error}")))).ok()
        };
        elements.iter().map(element).collect::<Vec<_>>().into_iter().collect()
    }

    /// A table inside this one.
    pub fn section(&mut self, key: &'static str) -> Option<Section<'p>> {
        let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
        let item = self.take(key)?;
        Section::new(&name, item, self.problems)
    }

    /// Tables of one kind, `[[key]]`.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'p>> {
        let Some(item) = self.take(key) else { return Vec::new() };
        let Kind::List(items) = item.kind else {
            self.wrong_kind::<()>(key, &item, "tables, each beginning with a line [[…]]");
            return Vec::new();
        };
        items.into_iter().filter_map(|item| Section::new(key, item, self.problems)).collect()
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self) {
        for (key, item) in &self.entries {
            let near = near(key, self.asked.iter().copied());
            let hint = match near {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known here: {}", self.asked.join(", ")),
            };
            let owner = if self.name.is_empty() { String::new() } else { format!(" in [{}]", self.name) };
            self.problems.push(place_of(item).problem(format!("unknown key {key}{owner}; {hint}")));
        }
    }

    fn text_of(&self, key: &str, item: &Item) -> Option<String> {
        match &item.kind {
            Kind::Text(text) => Some(text.clone()),
            _ => self.wrong_kind(key, item, "a text in quotes"),
        }
    }

    fn wrong_kind<T>(&self, key: &str, item: &Item, expected: &str) -> Option<T> {
        let found = match &item.kind {
            Kind::Text(text) => format!("{text:?}"),
            other => other.name().to_owned(),
        };
        self.problems.push(place_of(item).problem(format!("{key} must be {expected}, not {found}")));
        None
    }
}

/// The place of an item; a table that was merged from several layers has none of its own, so its
/// first entry's.
fn place_of(item: &Item) -> Place {
    match &item.kind {
        Kind::Table(entries) if item.place.line.is_none() => {
            entries.first().map_or_else(|| item.place.clone(), |(_, first)| place_of(first))
        }
        _ => item.place.clone(),
    }
}

fn comma_separated(text: &str, place: &Place) -> Vec<Item> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(|word| Item { place: place.clone(), kind: Kind::Text(word.to_owned()) }).collect()
}

/// The candidate that somebody probably meant.
pub fn near<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase();
    let score = |candidate: &str| strsim::normalized_damerau_levenshtein(&word, &candidate.to_lowercase());
    let scored = candidates.into_iter().map(|candidate| (score(candidate), candidate));
    // Of several that are as near, the first: ids come before labels.
    let best = scored.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.filter(|(score, _)| *score >= 0.6).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_one_of_a_few_letters_off() {
        let words = ["uptime", "disk-usage", "reboot"];
        for (word, expected) in [("uptme", Some("uptime")), ("Reboot", Some("reboot")), ("shutdown", None), ("", None)]
        {
            assert_eq!(near(word, words), expected, "{word}");
        }
    }
}
