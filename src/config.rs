//! The service's settings: defaults, a TOML file, variables, flags, in that order, each over the one before.

mod address;
mod bounds;
mod compose;
mod error;
mod extract;
mod kubernetes;
mod layer;
mod prices;
mod redis;
mod settings;

pub use address::ListenAddress;
pub use error::{ConfigError, Problem};
pub use prices::Price;
pub use redis::{Redis, RedisMode, RedisUrl};
pub use settings::{
    Dedupe, Engine, EngineKind, Limits, Log, Mode, Redaction, Retention, Runs, Settings, Usage,
};

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use figment::{Figment, value::Value};

use crate::access;
use extract::Extraction;
use layer::{Layer, Origin};

/// Every key with its default and its documentation, as a TOML file that can be used as it is once `auth` is filled
/// in.
pub const REFERENCE: &str = include_str!("config/defaults.toml");

/// Variables that begin like settings but belong to the commands.
pub const COMMAND_VARIABLES: [&str; 10] = [
    "EMITTER_CA_FILE",
    "EMITTER_CONFIG",
    "EMITTER_DATA_DIR",
    "EMITTER_JSON",
    "EMITTER_DEV_SECRET",
    "EMITTER_SESSION_FILE",
    "EMITTER_GRPC",
    "EMITTER_HTTP",
    "EMITTER_TOKEN",
    "EMITTER_ISSUER",
];

/// Where settings come from, besides the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// The process's environment; what does not begin with `EMITTER_` is left alone.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags as (key, text).
    pub flags: Vec<(&'static str, String)>,
}

/// Valid settings: every value is within its bounds, and the secret is at hand.
#[derive(Clone, Debug)]
pub struct Config {
    /// How far the issuer's clock may differ from ours.
    pub token_leeway: std::time::Duration,
    /// The settings, less the secret.
    pub settings: Settings,
    /// How tokens are verified.
    pub access: access::Config,
}

/// Settings as they were put together, valid or not.
pub struct Resolved {
    figment: Figment,
    defaults: Layer,
    /// Every key, sorted, those outside tables first.
    keys: Vec<String>,
    problems: Vec<Problem>,
    /// The file cannot be read, so what it sets is unknown.
    unreadable: bool,
}

impl Config {
    /// The settings from `sources`.
    ///
    /// # Errors
    /// Every value that is wrong, with its key and where it comes from.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Resolved::new(sources).into_config()
    }
}

impl Resolved {
    /// Puts the settings from `sources` together.
    pub fn new(sources: &Sources) -> Self {
        let mut problems = Vec::new();
        let defaults = Layer::toml(Origin::Defaults, REFERENCE).unwrap_or_else(|problem| {
            problems.push(problem);
            Layer::empty(Origin::Defaults)
        });
        let keys = defaults.keys();
        let file = sources.file.as_deref().map(read_layer);
        let file = file.and_then(|read| read.map_err(|problem| problems.push(problem)).ok());
        let unreadable = !problems.is_empty();
        let variables = Layer::variables(&defaults, &sources.environment, &mut problems);
        let flags = Layer::flags(&defaults, &sources.flags, &mut problems);
        let mut figment = Figment::from(defaults.clone());
        for mut layer in file.into_iter().chain([variables, flags]) {
            layer.remove_unknown(&keys, &mut problems);
            figment = figment.merge(layer);
        }
        Self {
            figment,
            defaults,
            keys,
            problems,
            unreadable,
        }
    }

    /// The settings, if they are valid.
    ///
    /// # Errors
    /// Every value that is wrong, with its key and where it comes from.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let mut problems = self.problems;
        if self.unreadable {
            return Err(ConfigError(problems));
        }
        let extraction = Extraction::new(&self.figment, &self.defaults, &self.keys);
        let Some(settings) = extraction.run(&mut problems) else {
            return Err(ConfigError(problems));
        };
        let mut found = Vec::new();
        settings.check(&mut |key, problem| found.push((key.to_owned(), problem)));
        let secret = settings
            .auth
            .load_secret()
            .map_err(|(key, problem)| found.push((key.to_owned(), problem)))
            .unwrap_or_default();
        // Where a default stands in for a wrong value, what it leads to is no problem of the user's.
        found.retain(|(key, _)| !bounds::depends_on(key, &problems));
        problems.extend(
            found
                .into_iter()
                .map(|(key, problem)| Problem::of_value(&self.figment, &key, problem)),
        );
        if !problems.is_empty() {
            return Err(ConfigError(problems));
        }
        let issuer = settings.auth.issuer.clone();
        Ok(Config {
            token_leeway: settings.auth.leeway,
            settings,
            access: access::Config { issuer, secret },
        })
    }

    /// Whether logs are to be JSON lines, also where other settings are wrong.
    pub fn logs_json(&self) -> bool {
        let value = self.figment.find_value("log.json");
        value.is_ok_and(|value| value.to_bool() == Some(true))
    }

    /// The settings as TOML with the origin of each that is not a default. The secret is shown as `[set]`.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut table = "";
        for key in &self.keys {
            let Ok(value) = self.figment.find_value(key) else {
                continue;
            };
            let (place, name) = key.rsplit_once('.').unwrap_or(("", key));
            if place != table {
                let _ = writeln!(text, "\n[{place}]");
                table = place;
            }
            let shown = match (key.as_str(), value.as_str()) {
                ("auth.secret", Some("")) => "\"\"".to_owned(),
                ("auth.secret", _) => "\"[set]\"".to_owned(),
                _ => toml(&value),
            };
            let origin = layer::origin_of(&self.figment, key, key);
            let _ = match origin {
                Some(origin) => writeln!(text, "{name} = {shown} # {origin}"),
                None => writeln!(text, "{name} = {shown}"),
            };
        }
        text
    }
}

fn read_layer(path: &Path) -> Result<Layer, Problem> {
    let origin = Origin::File(path.to_owned());
    let text = fs::read_to_string(path)
        .map_err(|error| Problem::of_origin(&origin, format!("cannot be read: {error}")))?;
    Layer::toml(origin, &text)
}

/// `value` as TOML. Texts are written as in JSON, which TOML reads alike.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(_, items) => {
            let items: Vec<String> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Dict(_, table) => {
            let entry = |(key, value): (&String, &Value)| match is_bare(key) {
                true => format!("{key} = {}", toml(value)),
                false => format!("{} = {}", toml(&key.as_str().into()), toml(value)),
            };
            let entries: Vec<String> = table.iter().map(entry).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        // The addresses of stores may hold passwords.
        Value::String(_, text) => serde_json::to_string(&redis::masked(text)).unwrap_or_default(),
        value => serde_json::to_string(value).unwrap_or_default(),
    }
}

/// Whether TOML takes `key` without quotes.
fn is_bare(key: &str) -> bool {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !key.is_empty() && key.chars().all(bare)
}

#[cfg(test)]
mod tests;
