//! What became of an event, as one line.

use serde_json::json;

use crate::{
    cli::{runs, text::plain},
    client::Fate,
    proto::v1::Adjustment,
};

/// For a person.
pub(super) fn plain_text(answer: &Fate) -> String {
    match answer {
        Ok(receipt) => {
            let position = receipt.position.clone().unwrap_or_default();
            let duplicate = if receipt.duplicate { "  duplicate" } else { "" };
            format!(
                "stored   {}  at {}-{}  run_sequence {}{duplicate}{}",
                plain(&receipt.event_id),
                plain(&position.epoch),
                position.offset,
                receipt.run_sequence,
                adjusted(&receipt.adjustments),
            )
        }
        Err(refusal) if refusal.reason.is_empty() => {
            format!("unknown  {}", plain(&refusal.message))
        }
        Err(refusal) => {
            let (reason, message) = (plain(&refusal.reason), plain(&refusal.message));
            format!("refused  {reason}: {message}")
        }
    }
}

/// One more line for each adjustment.
fn adjusted(adjustments: &[Adjustment]) -> String {
    let line = |adjustment: &Adjustment| {
        let action = runs::words::adjustment(adjustment.action());
        let (field, reason) = (plain(&adjustment.field), plain(&adjustment.reason));
        format!("\n         {action} {field}: {reason}")
    };
    adjustments.iter().map(line).collect()
}

/// For a script: `{"receipt": …}` or `{"refusal": …}`.
pub(super) fn json(answer: &Fate) -> String {
    let value = match answer {
        Ok(receipt) => {
            let position = receipt.position.clone().unwrap_or_default();
            json!({"receipt": {
                "event_id": receipt.event_id,
                "epoch": position.epoch,
                "offset": position.offset,
                "run_sequence": receipt.run_sequence,
                "recorded_at": receipt.recorded_at.as_ref().map(ToString::to_string),
                "duplicate": receipt.duplicate,
                "adjustments": receipt.adjustments.iter().map(runs::json::adjustment).collect::<Vec<_>>(),
            }})
        }
        Err(refusal) => {
            let violations = refusal.violations.iter().map(
                |violation| json!({"field": violation.field, "description": violation.description}),
            );
            json!({"refusal": {
                "code": refusal.code,
                "reason": refusal.reason,
                "message": refusal.message,
                "violations": violations.collect::<Vec<_>>(),
                "metadata": refusal.metadata,
            }})
        }
    };
    value.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::proto::v1::{AdjustmentAction, Receipt, Refusal};

    #[test]
    fn answers_are_one_line_each() {
        let receipt = Receipt {
            event_id: "e\n1".into(),
            position: Some(crate::proto::v1::Position {
                epoch: "00000000000000ab".into(),
                offset: 7,
            }),
            run_sequence: 2,
            recorded_at: Some(prost_types::Timestamp::default()),
            duplicate: true,
            adjustments: vec![Adjustment {
                field: "labels.k".into(),
                action: AdjustmentAction::Dropped.into(),
                reason: "has a control character".into(),
            }],
        };
        let refusal = Box::new(Refusal {
            reason: "INVALID_EVENT".into(),
            message: "no\u{1b}[31m".into(),
            ..Refusal::default()
        });
        assert_eq!(
            plain_text(&Ok(receipt.clone())),
            "stored   e\\n1  at 00000000000000ab-7  run_sequence 2  duplicate\n         dropped labels.k: has a control character"
        );
        assert_eq!(
            plain_text(&Err(refusal.clone())),
            "refused  INVALID_EVENT: no\\u{1b}[31m"
        );
        let line: Value = serde_json::from_str(&json(&Ok(receipt))).unwrap();
        assert_eq!(line["receipt"]["recorded_at"], "1970-01-01T00:00:00Z");
        assert_eq!(
            line["receipt"]["adjustments"],
            json!([{"field": "labels.k", "action": "dropped", "reason": "has a control character"}])
        );
        let line: Value = serde_json::from_str(&json(&Err(refusal))).unwrap();
        assert_eq!(line["refusal"]["reason"], "INVALID_EVENT");
    }
}
