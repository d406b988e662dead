//! From values to settings: every value of a wrong type is reported at once, not the first only.

use std::collections::{HashMap, HashSet};

use figment::{Error, Figment, value::Value};

use super::{
    error::Problem,
    layer::{self, Layer},
    settings::Settings,
};

/// The most problems that are reported. Each takes one more extraction.
const MOST: usize = 100;

/// Extracts the settings and collects what is wrong with the values.
pub(super) struct Extraction<'a> {
    figment: &'a Figment,
    defaults: &'a Layer,
    keys: &'a [String],
    /// Keys whose default stands in for a wrong value.
    replaced: HashSet<String>,
    /// How many items at the beginning of a list were checked and left out.
    left_out: HashMap<String, usize>,
}

impl<'a> Extraction<'a> {
    pub(super) fn new(figment: &'a Figment, defaults: &'a Layer, keys: &'a [String]) -> Self {
        Self {
            figment,
            defaults,
            keys,
            replaced: HashSet::new(),
            left_out: HashMap::new(),
        }
    }

    /// The settings, with the default in place of each wrong value; `None` if there are none. The settings are only
    /// good for more checks if a problem was reported.
    pub(super) fn run(mut self, problems: &mut Vec<Problem>) -> Option<Settings> {
        let mut rest = self.figment.clone();
        loop {
            let error = match rest.extract::<Settings>() {
                Ok(settings) => return Some(settings),
                Err(error) => error,
            };
            for error in error {
                let stand_in = self.report(&rest, &error, problems);
                if problems.len() >= MOST {
                    return None;
                }
                rest = rest.merge(stand_in?);
            }
        }
    }

    /// Reports `error`. Returns what stands in for the wrong value, or `None` if the rest cannot be checked.
    fn report(
        &mut self,
        rest: &Figment,
        error: &Error,
        problems: &mut Vec<Problem>,
    ) -> Option<Layer> {
        let mut path = error.path.clone();
        let key = self.key_of(&path);
        let mut stand_in = None;
        if let Some(key) = &key {
            let depth = key.split('.').count();
            let index = path.get(depth).and_then(|part| part.parse::<usize>().ok());
            let items = rest.find_value(key).ok().and_then(Value::into_array);
            if let (Some(index), Some(items)) = (index, items) {
                let left_out = self.left_out.entry(key.clone()).or_default();
                path[depth] = (*left_out + index).to_string();
                *left_out += index + 1;
                let later: Vec<Value> = items.into_iter().skip(index + 1).collect();
                stand_in = Some(Layer::stand_in(key, later.into()));
            } else if self.replaced.insert(key.clone()) {
                let default = self.defaults.value(key).cloned();
                stand_in = default.map(|default| Layer::stand_in(key, default));
            }
        }
        let place = path.join(".");
        let known = key.as_deref().unwrap_or(&place);
        // A secret of the wrong type is a secret all the same.
        let problem = match place.as_str() {
            "auth.secret" => "is not a text".to_owned(),
            _ => error.kind.to_string(),
        };
        problems.push(Problem {
            origin: layer::origin_of(self.figment, known, &place),
            key: Some(place),
            problem,
        });
        stand_in
    }

    /// The key that a value at `path` belongs to.
    fn key_of(&self, path: &[String]) -> Option<String> {
        (1..=path.len())
            .rev()
            .map(|length| path[..length].join("."))
            .find(|key| self.keys.contains(key))
    }
}
