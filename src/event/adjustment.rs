//! What the service changed of an event so that it could store it.

use std::sync::Arc;

use crate::proto::v1;

/// What the service did with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Removed it.
    Dropped,
    /// Cut a text to its greatest length.
    Truncated,
    /// Moved a number or duration to the nearest value in range.
    Clamped,
    /// Replaced a JSON value, or a part of one, with null.
    Nulled,
    /// Replaced a part of it: a total by the sum of its parts, a control character by a space.
    Corrected,
}

/// One value that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjustment {
    /// The path of the field within the event: ASCII without control characters.
    pub field: Box<str>,
    /// The action.
    pub action: Action,
    /// The rule that the value broke.
    pub reason: Box<str>,
}

/// The adjustments of one event, in the order of its fields. Without any it takes no memory of its own; clones share
/// the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adjustments(Option<Arc<Vec<Adjustment>>>);

impl Action {
    /// Every action.
    pub const ALL: [Self; 5] = [
        Self::Dropped,
        Self::Truncated,
        Self::Clamped,
        Self::Nulled,
        Self::Corrected,
    ];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Truncated => "truncated",
            Self::Clamped => "clamped",
            Self::Nulled => "nulled",
            Self::Corrected => "corrected",
        }
    }

    /// The action as `emitter.v1` has it.
    pub const fn to_proto(self) -> v1::AdjustmentAction {
        match self {
            Self::Dropped => v1::AdjustmentAction::Dropped,
            Self::Truncated => v1::AdjustmentAction::Truncated,
            Self::Clamped => v1::AdjustmentAction::Clamped,
            Self::Nulled => v1::AdjustmentAction::Nulled,
            Self::Corrected => v1::AdjustmentAction::Corrected,
        }
    }
}

impl Adjustment {
    /// The first segment of the field's path, such as `labels`.
    pub fn root(&self) -> &str {
        let end = self.field.find(['.', '[']);
        &self.field[..end.unwrap_or(self.field.len())]
    }

    fn weight(&self) -> usize {
        size_of::<Self>() + self.field.len() + self.reason.len()
    }
}

impl Adjustments {
    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The adjustments, in the order of the event's fields.
    pub fn iter(&self) -> std::slice::Iter<'_, Adjustment> {
        self.0.as_deref().map_or(&[][..], Vec::as_slice).iter()
    }

    /// About how many bytes of memory they take.
    pub fn weight(&self) -> usize {
        self.iter().map(Adjustment::weight).sum()
    }

    /// The adjustments as `emitter.v1` has them.
    pub fn to_proto(&self) -> Vec<v1::Adjustment> {
        self.iter().map(v1::Adjustment::from).collect()
    }
}

impl From<Vec<Adjustment>> for Adjustments {
    fn from(list: Vec<Adjustment>) -> Self {
        Self((!list.is_empty()).then(|| Arc::new(list)))
    }
}

impl<'a> IntoIterator for &'a Adjustments {
    type Item = &'a Adjustment;
    type IntoIter = std::slice::Iter<'a, Adjustment>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<&Adjustment> for v1::Adjustment {
    fn from(adjustment: &Adjustment) -> Self {
        Self {
            field: adjustment.field.as_ref().to_owned(),
            action: adjustment.action.to_proto().into(),
            reason: adjustment.reason.as_ref().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_field_is_no_key_of_the_producer() {
        for (field, want) in [
            ("traceparent", "traceparent"),
            ("labels.k", "labels"),
            (r#"labels["a.b"]"#, "labels"),
            ("agent_completed.result[2].x", "agent_completed"),
        ] {
            let adjustment = Adjustment {
                field: field.into(),
                action: Action::Dropped,
                reason: "".into(),
            };
            assert_eq!(adjustment.root(), want);
        }
    }
}
