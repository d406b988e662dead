//! One source of settings.

use std::{ffi::OsString, path::PathBuf};

use figment::{
    Error, Figment, Metadata, Profile, Provider,
    providers::{Format, Toml},
    value::{Dict, Map, Value},
};

use super::{COMMAND_VARIABLES, Problem, kubernetes};

const PREFIX: &str = "EMITTER_";

/// Where settings come from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    Defaults,
    File(PathBuf),
    Variables,
    Flags,
}

const DEFAULTS: &str = "defaults";
const VARIABLES: &str = "environment";
const FLAGS: &str = "flags";

impl Origin {
    /// The source as a whole.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Defaults => DEFAULTS.to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Variables => VARIABLES.to_owned(),
            Self::Flags => FLAGS.to_owned(),
        }
    }

    /// The place of `key` in it.
    pub(super) fn name_of(&self, key: &str) -> String {
        place(&self.name(), key)
    }
}

/// The place of `key` in the source of that name.
fn place(source: &str, key: &str) -> String {
    match source {
        VARIABLES => {
            // An item of a list is set with its list.
            let is_name = |part: &&str| part.parse::<usize>().is_err();
            let names: Vec<&str> = key.split('.').take_while(is_name).collect();
            format!("{PREFIX}{}", names.join("__").to_uppercase())
        }
        FLAGS => format!("--{}", key.replace(['_', '.'], "-")),
        file => file.to_owned(),
    }
}

/// The place of `key` in the source that `metadata` is of; `None`: it is the default.
fn describe(metadata: &Metadata, key: &str) -> Option<String> {
    (metadata.name != DEFAULTS).then(|| place(&metadata.name, key))
}

/// Where the value at `place`, which belongs to `key`, comes from; `None`: it is the default.
pub(super) fn origin_of(figment: &Figment, key: &str, place: &str) -> Option<String> {
    describe(figment.find_metadata(key)?, place)
}

/// One source of settings.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    origin: Origin,
    dict: Dict,
}

impl Layer {
    pub(super) fn empty(origin: Origin) -> Self {
        Self {
            origin,
            dict: Dict::new(),
        }
    }

    /// The settings in the TOML text `text`.
    pub(super) fn toml(origin: Origin, text: &str) -> Result<Self, Problem> {
        match Toml::from_str::<Dict>(text) {
            Ok(dict) => Ok(Self { origin, dict }),
            Err(error) => {
                // The error's own text quotes the line, which may hold the secret.
                let start = error.span().map_or(0, |span| span.start);
                let before = text.get(..start).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                // One problem is one line.
                let message = error.message().replace('\n', ", ");
                let problem = format!("line {line}: {message}");
                Err(Problem::of_origin(&origin, problem))
            }
        }
    }

    /// `value` for `key`, and nothing else.
    pub(super) fn stand_in(key: &str, value: Value) -> Self {
        let mut layer = Self::empty(Origin::Defaults);
        insert(&mut layer.dict, key, value);
        layer
    }

    /// The value of `key`.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        find(&self.dict, key)
    }

    /// The settings in `environment`, each read as what its key's default is.
    pub(super) fn variables(
        defaults: &Layer,
        environment: &[(OsString, OsString)],
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut layer = Self::empty(Origin::Variables);
        for (name, text) in environment {
            let Some(name) = name.to_str().filter(|name| is_setting(name)) else {
                continue;
            };
            let key = name[PREFIX.len()..].to_lowercase().replace("__", ".");
            if !defaults.has(&key) && kubernetes::injects(name, text) {
                continue;
            }
            match text.to_str() {
                Some(text) => layer.set(defaults, &key, text, problems),
                None => problems.push(Problem::of_key(&layer.origin, &key, "is not UTF-8")),
            }
        }
        layer
    }

    /// The settings in `flags`, each read as what its key's default is.
    pub(super) fn flags(
        defaults: &Layer,
        flags: &[(&'static str, String)],
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut layer = Self::empty(Origin::Flags);
        for (key, text) in flags {
            layer.set(defaults, key, text, problems);
        }
        layer
    }

    /// Every key, sorted, those outside tables first.
    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        collect_keys(&self.dict, "", &mut keys);
        // As TOML wants it.
        keys.sort_by_key(|key| key.contains('.'));
        keys
    }

    /// Removes and reports every key that is not in `known`.
    pub(super) fn remove_unknown(&mut self, known: &[String], problems: &mut Vec<Problem>) {
        for key in self.keys() {
            if known.contains(&key) {
                continue;
            }
            let problem = match meant(known, &key) {
                Some(meant) => format!("is not a known key: did you mean {}?", self.spelled(meant)),
                None => "is not a known key".to_owned(),
            };
            problems.push(Problem::of_key(&self.origin, &key, problem));
            remove(&mut self.dict, &key);
        }
    }

    /// `key` as this source spells it.
    fn spelled(&self, key: &str) -> String {
        match &self.origin {
            Origin::File(_) | Origin::Defaults => key.to_owned(),
            Origin::Variables | Origin::Flags => self.origin.name_of(key),
        }
    }

    /// Whether `key` is one, and not a table.
    fn has(&self, key: &str) -> bool {
        self.value(key)
            .is_some_and(|value| value.as_dict().is_none())
    }

    fn set(&mut self, defaults: &Layer, key: &str, text: &str, problems: &mut Vec<Problem>) {
        let default = find(&defaults.dict, key);
        match read_as(default, text) {
            Ok(value) => insert(&mut self.dict, key, value),
            Err(expected) => {
                let problem = format!("{text:?} is not {expected}");
                problems.push(Problem::of_key(&self.origin, key, problem));
            }
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.name())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// Whether a variable of that name can be a setting.
fn is_setting(name: &str) -> bool {
    name.starts_with(PREFIX) && !COMMAND_VARIABLES.contains(&name)
}

/// The known key that differs from `key` by its separators or capitals only, such as `auth.secret` for `auth_secret`.
fn meant<'a>(known: &'a [String], key: &str) -> Option<&'a str> {
    let words = |key: &str| -> Vec<String> {
        let separators = ['.', '_', '-'];
        let words = key.split(separators).filter(|word| !word.is_empty());
        words.map(str::to_lowercase).collect()
    };
    let given = words(key);
    let found = known.iter().find(|known| words(known) == given)?;
    Some(found)
}

/// `text` as a value of the kind of `default`, or what it should have been. Lists are separated by commas.
fn read_as(default: Option<&Value>, text: &str) -> Result<Value, &'static str> {
    let text = text.trim();
    match default {
        Some(Value::Bool(..)) => text
            .parse()
            .map(|flag: bool| flag.into())
            .map_err(|_| "true or false"),
        Some(Value::Num(..)) => text
            .parse()
            .map(|number: u64| number.into())
            .map_err(|_| "a whole number"),
        Some(Value::Array(..)) => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Ok(items.map(Value::from).collect::<Vec<Value>>().into())
        }
        _ => Ok(text.into()),
    }
}

fn collect_keys(dict: &Dict, prefix: &str, keys: &mut Vec<String>) {
    for (name, value) in dict {
        let key = format!("{prefix}{name}");
        match value {
            Value::Dict(_, table) => collect_keys(table, &format!("{key}."), keys),
            _ => keys.push(key),
        }
    }
}

fn find<'a>(dict: &'a Dict, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => dict.get(key),
        Some((table, rest)) => find(dict.get(table)?.as_dict()?, rest),
    }
}

/// Removes `key`, and the tables that are empty without it.
fn remove(dict: &mut Dict, key: &str) {
    let Some((table, rest)) = key.split_once('.') else {
        dict.remove(key);
        return;
    };
    if let Some(Value::Dict(_, inner)) = dict.get_mut(table) {
        remove(inner, rest);
        if inner.is_empty() {
            dict.remove(table);
        }
    }
}

fn insert(dict: &mut Dict, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            dict.insert(key.to_owned(), value);
        }
        Some((table, rest)) => {
            let inner = dict
                .entry(table.to_owned())
                .or_insert_with(|| Dict::new().into());
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}
