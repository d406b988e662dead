//! What became of an event, as one line.

use serde_json::json;

use crate::{cli::text::plain, client::Fate};

/// For a person.
pub(super) fn plain_text(answer: &Fate) -> String {
    match answer {
        Ok(receipt) => {
            let position = receipt.position.clone().unwrap_or_default();
            let duplicate = if receipt.duplicate { "  duplicate" } else { "" };
            format!(
                "stored   {}  at {}-{}  run_sequence {}{duplicate}",
                plain(&receipt.event_id),
                plain(&position.epoch),
                position.offset,
                receipt.run_sequence,
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
    use crate::proto::v1::{Receipt, Refusal};

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
            ..Default::default()
        };
        let refusal = Box::new(Refusal {
            reason: "INVALID_EVENT".into(),
            message: "no\u{1b}[31m".into(),
            ..Refusal::default()
        });
        assert_eq!(
            plain_text(&Ok(receipt.clone())),
            "stored   e\\n1  at 00000000000000ab-7  run_sequence 2  duplicate"
        );
        assert_eq!(
            plain_text(&Err(refusal.clone())),
            "refused  INVALID_EVENT: no\\u{1b}[31m"
        );
        let line: Value = serde_json::from_str(&json(&Ok(receipt))).unwrap();
        assert_eq!(line["receipt"]["recorded_at"], "1970-01-01T00:00:00Z");
        let line: Value = serde_json::from_str(&json(&Err(refusal))).unwrap();
        assert_eq!(line["refusal"]["reason"], "INVALID_EVENT");
    }
}
