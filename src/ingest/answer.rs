//! Receipts and refusals as the contract writes them.

use crate::{
    event::Receipt,
    proto::v1::{self, emit_result::Outcome},
    reason::{MESSAGE_CHARS, Refusal},
};

/// One result of a batch.
pub(super) fn result(result: Result<Receipt, Refusal>) -> v1::EmitResult {
    let outcome = match result {
        Ok(stored) => Outcome::Receipt((&stored).into()),
        Err(refused) => Outcome::Refusal(refusal(refused)),
    };
    v1::EmitResult {
        outcome: Some(outcome),
    }
}

/// `refusal` on the wire, with the same content as the status of a unary call.
fn refusal(refusal: Refusal) -> v1::Refusal {
    v1::Refusal {
        code: refusal.reason.code() as i32,
        reason: refusal.reason.name().to_owned(),
        message: refusal.message.chars().take(MESSAGE_CHARS).collect(),
        violations: refusal
            .violations
            .into_iter()
            .map(|violation| v1::FieldViolation {
                field: violation.field,
                description: violation.description,
            })
            .collect(),
        retry_after: refusal.retry_after.and_then(|after| after.try_into().ok()),
        metadata: refusal.metadata,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::StatusExt;

    use super::*;
    use crate::{
        clock::Timestamp,
        event::{Action, Adjustment, Epoch, EventId, Offset, Position, RunSequence},
        reason::{Reason, Violation, to_status},
    };

    #[test]
    fn a_receipt_is_written_in_full() {
        let stored = Receipt {
            event_id: EventId::new("e1").unwrap(),
            position: Position::new(Epoch::new(0xab), Offset(7)),
            run_sequence: RunSequence(3),
            recorded_at: Timestamp::from_millis(1_500),
            duplicate: true,
            adjustments: vec![Adjustment {
                field: "labels.k".into(),
                action: Action::Dropped,
                reason: "has a control character".into(),
            }]
            .into(),
        };
        let want = v1::Receipt {
            event_id: "e1".into(),
            position: Some(v1::Position {
                epoch: "00000000000000ab".into(),
                offset: 7,
            }),
            run_sequence: 3,
            recorded_at: Some(prost_types::Timestamp {
                seconds: 1,
                nanos: 500_000_000,
            }),
            duplicate: true,
            adjustments: vec![v1::Adjustment {
                field: "labels.k".into(),
                action: v1::AdjustmentAction::Dropped.into(),
                reason: "has a control character".into(),
            }],
        };
        assert_eq!(v1::Receipt::from(&stored), want);
    }

    #[test]
    fn a_refusal_in_a_batch_says_what_the_status_says() {
        let many = (0..20)
            .map(|n| Violation {
                field: format!("labels.l{n}"),
                description: "is longer than 256 characters".into(),
            })
            .collect();
        for refused in [
            Refusal::invalid(Reason::InvalidEvent, many).below("events[1]"),
            Refusal::new(Reason::StreamFull, "no room"),
            Refusal::new(Reason::Contended, "try again").with("attempts", "8"),
        ] {
            let status = to_status(&refused);
            let details = status.get_error_details();
            let written = refusal(refused);

            let info = details.error_info().unwrap();
            assert_eq!(written.code, status.code() as i32);
            assert_eq!(written.message, status.message());
            assert_eq!(written.reason, info.reason);
            assert_eq!(
                written.metadata,
                info.metadata.clone().into_iter().collect()
            );
            let fields: Vec<_> = details
                .bad_request()
                .map(|bad| {
                    bad.field_violations
                        .iter()
                        .map(|v| (&v.field, &v.description))
                        .collect()
                })
                .unwrap_or_default();
            let written_fields: Vec<_> = written
                .violations
                .iter()
                .map(|v| (&v.field, &v.description))
                .collect();
            assert_eq!(written_fields, fields);
            let retry = details.retry_info().and_then(|info| info.retry_delay);
            let written_retry: Option<Duration> =
                written.retry_after.and_then(|after| after.try_into().ok());
            assert_eq!(written_retry, retry);
        }
    }
}
