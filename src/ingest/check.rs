//! The rules that fields share, and what was found to break them.

use std::time::Duration;

use prost_types::{Struct, Value, value::Kind};

use crate::{
    event::{Action, Adjustment, Adjustments, IdError},
    reason::{Reason, Refusal, Violation},
};

use super::{json, path::Path};

/// The most violations that a refusal names.
const VIOLATIONS: usize = 32;

/// About how many bytes of text a refusal's violations may take in all: a status travels in headers, of which stock
/// clients accept 8 KiB.
const VIOLATION_BYTES: usize = 2048;

/// The most adjustments that are kept of one event.
const ADJUSTMENTS: usize = 32;

/// About how many bytes of text the adjustments of one event may take in all, so that the answer to a full batch stays
/// within the 4 MiB that stock clients accept.
const ADJUSTMENT_BYTES: usize = 2048;

/// The longest name, in characters.
pub(super) const NAME_CHARS: usize = 128;

/// The largest count: JavaScript reads larger integers wrong.
pub(super) const MAX_COUNT: u64 = (1 << 53) - 1;

/// The longest duration that protobuf allows, in seconds: about 10,000 years.
pub(super) const MAX_SECONDS: i64 = 315_576_000_000;

pub(super) const MAX_NANOS: i32 = 999_999_999;

/// Checks fields and collects what breaks a rule: what refuses the event, and what was changed instead. Nothing is
/// allocated while nothing breaks one.
pub(super) struct Checker {
    depth: usize,
    found: Vec<Violation>,
    bytes: usize,
    adjusted: Vec<Adjustment>,
    adjusted_bytes: usize,
    /// How many adjustments were made beyond those that are kept.
    further: usize,
}

impl Checker {
    /// A checker by which values may nest at most `depth` deep.
    pub(super) fn new(depth: usize) -> Self {
        Self {
            depth,
            found: Vec::new(),
            bytes: 0,
            adjusted: Vec::new(),
            adjusted_bytes: 0,
            further: 0,
        }
    }

    /// How deep values may nest.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// What was adjusted.
    ///
    /// # Errors
    /// The refusal, if anything was found that refuses the event.
    pub(super) fn finish(mut self) -> Result<Adjustments, Refusal> {
        if !self.found.is_empty() {
            return Err(Refusal::invalid(Reason::InvalidEvent, self.found));
        }
        if self.further > 0
            && let Some(last) = self.adjusted.last_mut()
        {
            last.reason = format!(
                "{}; {} more values were adjusted",
                last.reason, self.further
            )
            .into();
        }
        Ok(self.adjusted.into())
    }

    /// Notes that `action` was taken on the field `at`, which broke `rule`. Beyond the bound it only counts.
    pub(super) fn adjust(&mut self, at: &Path<'_>, action: Action, rule: impl Into<String>) {
        if self.adjusted.len() >= ADJUSTMENTS || self.adjusted_bytes >= ADJUSTMENT_BYTES {
            self.further += 1;
            return;
        }
        let adjustment = Adjustment {
            field: at.render().into(),
            action,
            reason: rule.into().into(),
        };
        self.adjusted_bytes += adjustment.field.len() + adjustment.reason.len();
        self.adjusted.push(adjustment);
    }

    /// Notes that the field `at` breaks `rule`, unless enough was noted already.
    pub(super) fn fail(&mut self, at: &Path<'_>, rule: impl Into<String>) {
        if self.is_full() {
            return;
        }
        let violation = Violation {
            field: at.render(),
            description: rule.into(),
        };
        self.bytes += violation.field.len() + violation.description.len();
        self.found.push(violation);
    }

    fn is_full(&self) -> bool {
        self.found.len() >= VIOLATIONS || self.bytes >= VIOLATION_BYTES
    }

    /// An id that may be absent.
    pub(super) fn id<T>(&mut self, at: &Path<'_>, text: &str, new: New<T>) -> Option<T> {
        if text.is_empty() {
            return None;
        }
        self.required_id(at, text, new)
    }

    /// An id that may not.
    pub(super) fn required_id<T>(&mut self, at: &Path<'_>, text: &str, new: New<T>) -> Option<T> {
        new(text)
            .map_err(|error| self.fail(at, error.to_string()))
            .ok()
    }

    /// A name that may be empty.
    pub(super) fn name(&mut self, at: &Path<'_>, text: &str) {
        self.line(at, text, NAME_CHARS);
    }

    /// A name that may not.
    pub(super) fn required_name(&mut self, at: &Path<'_>, text: &str) {
        if text.is_empty() {
            self.fail(at, "is required");
        }
        self.name(at, text);
    }

    /// A text of at most `chars` characters, none of them a control character.
    pub(super) fn line(&mut self, at: &Path<'_>, text: &str, chars: usize) {
        // A text cannot have more characters than bytes.
        if text.len() > chars && text.chars().count() > chars {
            self.fail(at, format!("is longer than {chars} characters"));
        } else if text.chars().any(char::is_control) {
            self.fail(at, "has a control character");
        }
    }

    /// A struct of bounded depth without NaN or infinities.
    pub(super) fn fields(&mut self, at: &Path<'_>, fields: &Struct) {
        self.fields_at(at, fields, 1);
    }

    fn fields_at(&mut self, at: &Path<'_>, fields: &Struct, level: usize) {
        if self.admits(at, level) {
            for (key, value) in &fields.fields {
                self.value_at(&at.key(key), value, level);
            }
        }
    }

    /// `level`: how many objects and arrays the value stands in.
    fn value_at(&mut self, at: &Path<'_>, value: &Value, level: usize) {
        match &value.kind {
            None => self.fail(at, "has no kind (null is `null_value`)"),
            Some(Kind::NullValue(0) | Kind::BoolValue(_) | Kind::StringValue(_)) => {}
            Some(Kind::NullValue(_)) => self.fail(at, "is an unknown null value"),
            Some(Kind::NumberValue(number)) if number.is_finite() => {}
            Some(Kind::NumberValue(_)) => self.fail(at, "must be a finite number"),
            Some(Kind::StructValue(fields)) => self.fields_at(at, fields, level + 1),
            Some(Kind::ListValue(list)) if self.admits(at, level + 1) => {
                for (index, value) in list.values.iter().enumerate() {
                    self.value_at(&at.index(index), value, level + 1);
                }
            }
            Some(Kind::ListValue(_)) => {}
        }
    }

    /// Whether to go on into an object or array. Beyond the depth nothing is visited, so the stack is bounded.
    fn admits(&mut self, at: &Path<'_>, level: usize) -> bool {
        let admitted = level <= self.depth;
        if !admitted {
            self.fail(at, format!("nests deeper than {}", self.depth));
        }
        admitted
    }

    /// The text of one JSON object.
    pub(super) fn json_object(&mut self, at: &Path<'_>, text: &str) {
        match json::problem(text, self.depth) {
            Some(problem) => self.fail(at, problem),
            None if !json::is_object(text) => self.fail(at, "must be a JSON object"),
            None => {}
        }
    }

    /// An RFC 6901 pointer.
    pub(super) fn pointer(&mut self, at: &Path<'_>, pointer: &str) {
        let rooted = pointer.is_empty() || pointer.starts_with('/');
        let mut tildes = pointer.split('~').skip(1);
        if !rooted {
            self.fail(at, "must be empty or begin with `/`");
        } else if !tildes.all(|after| after.starts_with(['0', '1'])) {
            self.fail(at, "has a `~` that is neither `~0` nor `~1`");
        }
    }
}

/// What makes an id of a text.
type New<T> = fn(&str) -> Result<T, IdError>;

/// How long `span` is, if it is valid and not negative.
pub(super) fn length(span: &prost_types::Duration) -> Option<Duration> {
    let valid = (0..=MAX_SECONDS).contains(&span.seconds) && (0..=MAX_NANOS).contains(&span.nanos);
    valid.then(|| Duration::new(span.seconds.unsigned_abs(), span.nanos.unsigned_abs()))
}
