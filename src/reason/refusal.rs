//! A refusal: a reason with what the caller needs to act on it.

use std::{collections::BTreeMap, time::Duration};

use super::Reason;

/// One field that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path below the event or request, such as `tool_executing.tool_name`.
    pub field: String,
    /// The rule that it breaks.
    pub description: String,
}

/// Why something was not done. Every surface renders the same content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", reason.name())]
pub struct Refusal {
    /// The machine-readable reason.
    pub reason: Reason,
    /// For a person.
    pub message: String,
    /// Which fields, on invalid input.
    pub violations: Vec<Violation>,
    /// When to try again, where that is worth while.
    pub retry_after: Option<Duration>,
    /// Facts that go with the reason.
    pub metadata: BTreeMap<String, String>,
}

/// How long to wait before a retry, unless the refusal says otherwise.
const RETRY_AFTER: Duration = Duration::from_millis(200);

impl Refusal {
    /// A refusal for `reason`; one that is worth a retry says when.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            violations: Vec::new(),
            retry_after: reason.retryable().then_some(RETRY_AFTER),
            metadata: BTreeMap::new(),
        }
    }

    /// Invalid input: `reason` is `InvalidEvent` or `InvalidRequest`.
    pub fn invalid(reason: Reason, violations: Vec<Violation>) -> Self {
        let mut message = String::from("invalid");
        for (n, violation) in violations.iter().enumerate() {
            message.push_str(if n == 0 { ": " } else { "; " });
            message.push_str(&violation.field);
            message.push(' ');
            message.push_str(&violation.description);
        }
        Self {
            violations,
            ..Self::new(reason, message)
        }
    }

    /// One invalid field.
    pub fn invalid_field(
        reason: Reason,
        field: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        Self::invalid(
            reason,
            vec![Violation {
                field: field.into(),
                description: description.into(),
            }],
        )
    }

    /// The same with one more fact.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// The same with every violation's field below `prefix`, as in `events[3].run_id`.
    #[must_use]
    pub fn below(mut self, prefix: &str) -> Self {
        if !self.violations.is_empty() {
            for violation in &mut self.violations {
                violation.field = if violation.field.is_empty() {
                    prefix.to_owned()
                } else {
                    format!("{prefix}.{}", violation.field)
                };
            }
            self.message = Self::invalid(self.reason, self.violations.clone()).message;
        }
        self
    }
}
