//! The rules that fields share, and what was found to break them.

use std::time::Duration;

use prost_types::{Struct, Value, value::Kind};

use crate::{
    event::IdError,
    reason::{Reason, Refusal, Violation},
};

use super::{json, path::Path};

/// The most violations that a refusal names.
const VIOLATIONS: usize = 32;

/// About how many bytes of text a refusal's violations may take in all: a status travels in headers, of which stock
/// clients accept 8 KiB.
const VIOLATION_BYTES: usize = 2048;

/// The longest name, in characters.
const NAME_CHARS: usize = 128;

/// The largest count: JavaScript reads larger integers wrong.
const MAX_COUNT: u64 = (1 << 53) - 1;

/// The longest duration that protobuf allows, in seconds: about 10,000 years.
const MAX_SECONDS: i64 = 315_576_000_000;

const MAX_NANOS: i32 = 999_999_999;

/// The first second of the year 1 and the last one of 9999, from the Unix epoch.
const MOMENTS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Checks fields and collects what breaks a rule. Nothing is allocated while nothing does.
pub(super) struct Checker {
    depth: usize,
    found: Vec<Violation>,
    bytes: usize,
}

impl Checker {
    /// A checker by which values may nest at most `depth` deep.
    pub(super) fn new(depth: usize) -> Self {
        Self {
            depth,
            found: Vec::new(),
            bytes: 0,
        }
    }

    /// The refusal, if anything was found.
    pub(super) fn refusal(self) -> Option<Refusal> {
        (!self.found.is_empty()).then(|| Refusal::invalid(Reason::InvalidEvent, self.found))
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

    /// A number from 0 to `max`.
    pub(super) fn number(&mut self, at: &Path<'_>, number: Option<f64>, max: u32) {
        // A NaN is in no range.
        if number.is_some_and(|number| !(0.0..=f64::from(max)).contains(&number)) {
            self.fail(at, format!("must be from 0 to {max}"));
        }
    }

    /// A count that JavaScript reads right.
    pub(super) fn count(&mut self, at: &Path<'_>, count: u64) {
        if count > MAX_COUNT {
            self.fail(at, "must be at most 2^53 - 1");
        }
    }

    /// A moment between the years 1 and 9999.
    pub(super) fn moment(&mut self, at: &Path<'_>, moment: Option<&prost_types::Timestamp>) {
        let valid = |at: &prost_types::Timestamp| {
            MOMENTS.contains(&at.seconds) && (0..=MAX_NANOS).contains(&at.nanos)
        };
        if moment.is_some_and(|moment| !valid(moment)) {
            self.fail(
                at,
                "must be between 0001-01-01 and 9999-12-31, nanos from 0 to 999,999,999",
            );
        }
    }

    /// A duration that is not negative.
    pub(super) fn duration(&mut self, at: &Path<'_>, span: Option<&prost_types::Duration>) {
        if span.is_some_and(|span| length(span).is_none()) {
            self.fail(
                at,
                "must be from 0 to 10,000 years, nanos from 0 to 999,999,999",
            );
        }
    }

    /// A duration within `least` and `most`; `rule` says so.
    pub(super) fn duration_within(
        &mut self,
        at: &Path<'_>,
        span: Option<&prost_types::Duration>,
        (least, most): (Duration, Duration),
        rule: &str,
    ) {
        let valid = |span| length(span).is_some_and(|length| least <= length && length <= most);
        if span.is_some_and(|span| !valid(span)) {
            self.fail(at, rule);
        }
    }

    /// A struct of bounded depth without NaN or infinities.
    pub(super) fn fields(&mut self, at: &Path<'_>, fields: &Struct) {
        self.fields_at(at, fields, 1);
    }

    /// A value of bounded depth without NaN or infinities.
    pub(super) fn value(&mut self, at: &Path<'_>, value: &Value) {
        self.value_at(at, value, 0);
    }

    /// The operand of a patch operation. It counts as one level deeper than it is: the messages around it take more of
    /// the nesting that a stock protobuf decoder allows, and an event that readers cannot decode would end their
    /// stream for good.
    pub(super) fn operand(&mut self, at: &Path<'_>, value: &Value) {
        self.value_at(at, value, 1);
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

    /// The text of one JSON value.
    pub(super) fn json(&mut self, at: &Path<'_>, text: &str) {
        if let Some(problem) = json::problem(text, self.depth) {
            self.fail(at, problem);
        }
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
