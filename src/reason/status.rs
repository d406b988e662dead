//! A refusal as a gRPC status with the details of AIP-193.

use std::collections::HashMap;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use super::{DOMAIN, Reason, Refusal};

/// How much of a message fits in a status, in characters: it travels in a header, percent-encoded.
pub const MESSAGE_CHARS: usize = 512;

/// The status for `refusal`: always `ErrorInfo`, `BadRequest` on invalid input, `RetryInfo` where a retry is worth
/// while, `QuotaFailure` on limits.
pub fn to_status(refusal: &Refusal) -> Status {
    let metadata: HashMap<String, String> = refusal
        .metadata
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut details = ErrorDetails::new();
    details.set_error_info(refusal.reason.name(), DOMAIN, metadata);
    for violation in &refusal.violations {
        details.add_bad_request_violation(&violation.field, &violation.description);
    }
    if let Some(after) = refusal.retry_after {
        details.set_retry_info(Some(after));
    }
    if refusal.reason.code() == tonic::Code::ResourceExhausted {
        let subject = match refusal.reason {
            Reason::StreamFull => "store",
            _ => "limit",
        };
        details.add_quota_failure_violation(subject, &refusal.message);
    }
    let message: String = refusal.message.chars().take(MESSAGE_CHARS).collect();
    Status::with_error_details(refusal.reason.code(), message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_reason_fields_and_retry() {
        let refusal = Refusal::invalid_field(Reason::InvalidEvent, "run_id", "is required")
            .below("events[3]");
        let status = to_status(&refusal);
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert_eq!(status.message(), "invalid: events[3].run_id is required");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("INVALID_EVENT", "emitter")
        );
        let fields = &details.bad_request().unwrap().field_violations;
        assert_eq!(fields[0].field, "events[3].run_id");
        assert!(details.retry_info().is_none());

        let full = to_status(&Refusal::new(Reason::StreamFull, "no room"));
        let details = full.get_error_details();
        assert!(details.retry_info().is_some());
        assert!(details.quota_failure().is_some());
    }
}
