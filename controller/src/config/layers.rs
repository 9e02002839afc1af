//! The environment and the flags over the file: the `config` crate merges them, and each value
//! keeps the place that it came from.
//!
//! The file itself never passes through `config`, which forgets lines and reads a key as a path.

use std::collections::HashMap;

use config::{ConfigError, Environment, Value, ValueKind};

use super::{
    Problem,
    item::{Item, Kind, Place},
    sections::Flags,
};

/// Keys of the file that belong to no section, and so have no `__` in their variable.
const TOP_LEVEL: [&str; 3] = ["STATE", "TASKS", "LOG_LEVEL"];

const PREFIX: &str = "PISTAT_";

/// Puts what the environment and the flags set into the file's tree. Variables that are not ours
/// are ignored, empty ones count as unset. Returns the variables whose names cannot be keys.
pub(super) fn overlay(
    file: &mut Item,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &Flags,
) -> Vec<Problem> {
    let ours = environment.into_iter().filter(|(name, _)| is_ours(name));
    let (variables, unreadable): (Vec<_>, Vec<_>) = ours.partition(|(name, _)| is_plain(name));
    let mut problems: Vec<_> = unreadable.iter().map(|(name, _)| not_a_key(name)).collect();
    match merge(variables.into_iter().collect(), flags) {
        Ok(merged) => put(file, &mut Vec::new(), merged, flags),
        Err(error) => problems.push(Place::named("environment").problem(error.to_string())),
    }
    problems
}

/// `PISTAT_<SECTION>__<KEY>`, or one of the keys without a section; `PISTAT_TOKEN` is the command
/// line's.
fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|key| key.contains("__") || TOP_LEVEL.contains(&key))
}

/// Whether the name has only what keys have: `config` reads anything else as a path, and would make
/// of `n[888888888]` a list of as many.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn not_a_key(name: &str) -> Problem {
    Place::named(name).problem("unknown key: the name of a variable has letters, digits and _ only")
}

fn merge(variables: HashMap<String, String>, flags: &Flags) -> Result<Value, ConfigError> {
    let environment = Environment::with_prefix(PREFIX.trim_end_matches('_'))
        .prefix_separator("_")
        .separator("__")
        .ignore_empty(true)
        .source(Some(variables));
    let mut layers = config::Config::builder().add_source(environment);
    for (_, key, value) in given(flags) {
        layers = layers.set_override_option(key, value)?;
    }
    Ok(layers.build()?.cache)
}

/// Each flag, its key and its value.
fn given(flags: &Flags) -> [(&'static str, &'static str, Option<String>); 5] {
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
    [
        ("--http", "http.listen", flags.http.clone()),
        ("--mqtt", "mqtt.listen", flags.mqtt.clone()),
        ("--state", "state", path(&flags.state)),
        ("--tasks", "tasks", path(&flags.tasks)),
        ("--log-level", "log_level", flags.log_level.clone()),
    ]
}

fn put(root: &mut Item, path: &mut Vec<String>, value: Value, flags: &Flags) {
    match value.kind {
        ValueKind::Table(entries) => {
            let mut entries: Vec<_> = entries.into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            for (key, value) in entries {
                path.push(key);
                put(root, path, value, flags);
                path.pop();
            }
        }
        kind => insert(root, path, Item { place: place(path, flags), kind: Kind::Text(kind.to_string()) }),
    }
}

/// The flag that set a key, or else its variable.
fn place(path: &[String], flags: &Flags) -> Place {
    let key = path.join(".");
    let flag = given(flags).into_iter().find(|(_, flagged, value)| *flagged == key && value.is_some());
    match flag {
        Some((flag, ..)) => Place::named(flag),
        None => Place::named(&format!("{PREFIX}{}", path.join("__").to_ascii_uppercase())),
    }
}

/// Puts a value into nested tables; a value that stands where a table is needed gives way.
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
