//! Rules whose breach changes a value instead of refusing the event.

use std::time::Duration;

use prost_types::{Struct, Value, value::Kind};

use super::{
    check::{Checker, MAX_COUNT, MAX_NANOS, MAX_SECONDS},
    json,
    path::Path,
};
use crate::event::Action;

/// What stands for a value that JSON cannot hold.
const NULL: Option<Kind> = Some(Kind::NullValue(0));

impl Checker {
    /// Cuts `text` to `chars` characters and replaces its control characters with spaces.
    pub(super) fn cut_line(&mut self, at: &Path<'_>, text: &mut String, chars: usize) {
        // A text cannot have more characters than bytes.
        let end = (text.len() > chars)
            .then(|| text.char_indices().nth(chars))
            .flatten();
        if let Some((end, _)) = end {
            text.truncate(end);
            let rule = format!("is longer than {chars} characters");
            self.adjust(at, Action::Truncated, rule);
        }
        if text.contains(char::is_control) {
            *text = text.replace(char::is_control, " ");
            self.adjust(at, Action::Corrected, "has a control character");
        }
    }

    /// Moves a number into 0 to `max`; drops one that is no number.
    pub(super) fn clamp_number(&mut self, at: &Path<'_>, number: &mut Option<f64>, max: u32) {
        let most = f64::from(max);
        let Some(stated) = *number else { return };
        if (0.0..=most).contains(&stated) {
            return;
        }
        let rule = format!("must be from 0 to {max}");
        if stated.is_nan() {
            *number = None;
            self.adjust(at, Action::Dropped, rule);
        } else {
            *number = Some(stated.clamp(0.0, most));
            self.adjust(at, Action::Clamped, rule);
        }
    }

    /// Lowers a count to the largest that JavaScript reads right.
    pub(super) fn clamp_count(&mut self, at: &Path<'_>, count: &mut u64) {
        if *count > MAX_COUNT {
            *count = MAX_COUNT;
            self.adjust(at, Action::Clamped, "must be at most 2^53 - 1");
        }
    }

    /// Moves a duration into 0 to 10,000 years.
    pub(super) fn clamp_duration(
        &mut self,
        at: &Path<'_>,
        span: &mut Option<prost_types::Duration>,
    ) {
        let within = (Duration::ZERO, LONGEST);
        let rule = "must be from 0 to 10,000 years, nanos from 0 to 999,999,999";
        self.clamp_duration_within(at, span, within, rule);
    }

    /// Moves a duration into `least` to `most`; `rule` says so.
    pub(super) fn clamp_duration_within(
        &mut self,
        at: &Path<'_>,
        span: &mut Option<prost_types::Duration>,
        (least, most): (Duration, Duration),
        rule: &str,
    ) {
        let Some(stated) = span else { return };
        let nearest = nanos(stated).clamp(
            i128::try_from(least.as_nanos()).unwrap_or(i128::MAX),
            i128::try_from(most.as_nanos()).unwrap_or(i128::MAX),
        );
        let nearest = prost_types::Duration {
            seconds: i64::try_from(nearest / NANOS).unwrap_or(MAX_SECONDS),
            nanos: i32::try_from(nearest % NANOS).unwrap_or(MAX_NANOS),
        };
        if *stated != nearest {
            *stated = nearest;
            self.adjust(at, Action::Clamped, rule);
        }
    }

    /// Replaces with null what JSON cannot hold in `fields`, and what nests too deep.
    pub(super) fn null_fields(&mut self, at: &Path<'_>, fields: &mut Struct) {
        for (key, value) in &mut fields.fields {
            self.null_value_at(&at.key(key), value, 1);
        }
    }

    /// Replaces with null what JSON cannot hold in `value`, and what nests too deep.
    pub(super) fn null_value(&mut self, at: &Path<'_>, value: &mut Value) {
        self.null_value_at(at, value, 0);
    }

    /// The same for the operand of a patch operation. It counts as one level deeper than it is: the messages around it
    /// take more of the nesting that a stock protobuf decoder allows, and an event that readers cannot decode would end
    /// their stream for good.
    pub(super) fn null_operand(&mut self, at: &Path<'_>, value: &mut Value) {
        self.null_value_at(at, value, 1);
    }

    /// `level`: how many objects and arrays the value stands in.
    fn null_value_at(&mut self, at: &Path<'_>, value: &mut Value, level: usize) {
        let deeper = level + 1;
        let rule = match &mut value.kind {
            Some(Kind::NullValue(0) | Kind::BoolValue(_) | Kind::StringValue(_)) => return,
            Some(Kind::NumberValue(number)) if number.is_finite() => return,
            Some(Kind::StructValue(fields)) if deeper <= self.depth() => {
                for (key, value) in &mut fields.fields {
                    self.null_value_at(&at.key(key), value, deeper);
                }
                return;
            }
            Some(Kind::ListValue(list)) if deeper <= self.depth() => {
                for (index, value) in list.values.iter_mut().enumerate() {
                    self.null_value_at(&at.index(index), value, deeper);
                }
                return;
            }
            None => "has no kind (null is `null_value`)".to_owned(),
            Some(Kind::NullValue(_)) => "is an unknown null value".to_owned(),
            Some(Kind::NumberValue(_)) => "must be a finite number".to_owned(),
            Some(Kind::StructValue(_) | Kind::ListValue(_)) => {
                format!("nests deeper than {}", self.depth())
            }
        };
        value.kind = NULL;
        self.adjust(at, Action::Nulled, rule);
    }

    /// Replaces `text` with `null` unless it is one JSON value of bounded depth.
    pub(super) fn null_json(&mut self, at: &Path<'_>, text: &mut String) {
        if let Some(problem) = json::problem(text, self.depth()) {
            "null".clone_into(text);
            self.adjust(at, Action::Nulled, problem);
        }
    }
}

const NANOS: i128 = 1_000_000_000;

/// The longest duration that protobuf allows.
const LONGEST: Duration = Duration::new(MAX_SECONDS.unsigned_abs(), MAX_NANOS.unsigned_abs());

fn nanos(span: &prost_types::Duration) -> i128 {
    i128::from(span.seconds) * NANOS + i128::from(span.nanos)
}
