//! The layers of the configuration, merged by the `config` crate. Each value keeps the place that it came from.

use std::collections::HashMap;

use config::{ConfigError, Source, Value, ValueKind};

use super::{
    Problem,
    item::{Item, Kind, Place},
    sections::Flags,
};

/// Keys of the file that belong to no section, and so have no `__` in their variable.
const TOP_LEVEL: [&str; 3] = ["STATE", "TASKS", "LOG_LEVEL"];

/// The file below the environment below the flags.
///
/// # Errors
/// Never in practice: our layers cannot fail to be collected.
pub(super) fn merge(file: Item, environment: Item, flags: Item) -> Result<Item, Problem> {
    let layers = config::Config::builder().add_source(Layer(file)).add_source(Layer(environment));
    let merged = layers.add_source(Layer(flags)).build();
    let merged = merged.map_err(|error| Place::named("configuration").problem(error.to_string()))?;
    let ValueKind::Table(mut top) = merged.cache.kind else { return Ok(table()) };
    Ok(top.remove(ROOT).map_or_else(table, item))
}

/// The one key that the `config` crate sees at the top, where it reads keys as paths: of `n[888888888]` it would make a list of as many, and of
/// `http.listen` in quotes the key of a section.
const ROOT: &str = "configuration";

/// The variables that are ours: `PISTAT_<SECTION>__<KEY>`. Empty ones count as unset.
pub(super) fn environment(variables: impl IntoIterator<Item = (String, String)>) -> Item {
    let mut root = table();
    let mut variables: Vec<_> = variables.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    variables.sort();
    for (name, value) in variables {
        let Some(key) = name.strip_prefix("PISTAT_") else { continue };
        if key.contains("__") || TOP_LEVEL.contains(&key) {
            let path: Vec<_> = key.split("__").map(str::to_ascii_lowercase).collect();
            insert(&mut root, &path, Item { place: Place::named(&name), kind: Kind::Text(value) });
        }
    }
    root
}

/// The flags that were given.
pub(super) fn flags(flags: &Flags) -> Item {
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let given: [(&str, &[&str], Option<String>); 5] = [
        ("--http", &["http", "listen"], flags.http.clone()),
        ("--mqtt", &["mqtt", "listen"], flags.mqtt.clone()),
        ("--state", &["state"], path(&flags.state)),
        ("--tasks", &["tasks"], path(&flags.tasks)),
        ("--log-level", &["log_level"], flags.log_level.clone()),
    ];
    let mut root = table();
    for (flag, keys, value) in given {
        let Some(value) = value else { continue };
        let keys: Vec<_> = keys.iter().map(|&key| key.to_owned()).collect();
        insert(&mut root, &keys, Item { place: Place::named(flag), kind: Kind::Text(value) });
    }
    root
}

fn table() -> Item {
    Item { place: Place::named("environment"), kind: Kind::Table(Vec::new()) }
}

/// Puts a value into nested tables; where a variable contradicts another, the later one counts.
fn insert(parent: &mut Item, path: &[String], value: Item) {
    let Some((key, rest)) = path.split_first() else { return *parent = value };
    if !matches!(parent.kind, Kind::Table(_)) {
        parent.kind = Kind::Table(Vec::new());
    }
    if let Kind::Table(entries) = &mut parent.kind {
        let index = entries.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
            entries.push((key.clone(), Item { place: value.place.clone(), kind: Kind::Table(Vec::new()) }));
            entries.len() - 1
        });
        insert(&mut entries[index].1, rest, value);
    }
}

/// One layer, as the `config` crate takes it.
#[derive(Debug, Clone)]
struct Layer(Item);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<config::Map<String, Value>, ConfigError> {
        Ok(HashMap::from([(ROOT.to_owned(), value(&self.0))]))
    }
}

/// Between the file's name and the line in a value's origin; no file name holds it.
const LINE_MARK: char = '\n';

fn value(item: &Item) -> Value {
    let line = item.place.line.map(|line| format!("{LINE_MARK}{line}")).unwrap_or_default();
    let kind = match &item.kind {
        Kind::Text(text) => ValueKind::String(text.clone()),
        Kind::Integer(number) => ValueKind::I64(*number),
        Kind::Number(number) => ValueKind::Float(*number),
        Kind::Boolean(truth) => ValueKind::Boolean(*truth),
        Kind::List(items) => ValueKind::Array(items.iter().map(value).collect()),
        Kind::Table(entries) => {
            ValueKind::Table(entries.iter().map(|(key, item)| (key.clone(), value(item))).collect())
        }
        Kind::Other(_) => ValueKind::Nil,
    };
    Value::new(Some(&format!("{}{line}", item.place.file)), kind)
}

fn item(value: Value) -> Item {
    let origin = value.origin().unwrap_or("configuration");
    let place = match origin.split_once(LINE_MARK) {
        Some((file, line)) => Place { file: file.into(), line: line.parse().ok() },
        None => Place::named(origin),
    };
    Item { place, kind: kind(value.kind) }
}

fn kind(kind: ValueKind) -> Kind {
    match kind {
        ValueKind::String(text) => Kind::Text(text),
        ValueKind::I64(number) => Kind::Integer(number),
        ValueKind::Float(number) => Kind::Number(number),
        ValueKind::Boolean(truth) => Kind::Boolean(truth),
        ValueKind::Array(values) => Kind::List(values.into_iter().map(item).collect()),
        ValueKind::Table(map) => {
            let mut entries: Vec<_> = map.into_iter().map(|(key, value)| (key, item(value))).collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Kind::Table(entries)
        }
        ValueKind::Nil | ValueKind::U64(_) | ValueKind::I128(_) | ValueKind::U128(_) => {
            Kind::Other("a value of another kind")
        }
    }
}
