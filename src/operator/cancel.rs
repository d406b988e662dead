//! Ends a run for an operator.

use std::sync::Arc;

use super::{
    OperatorService,
    grpc::{Tenants, unavailable},
    runs::{find, not_found},
};
use crate::{
    access::Principal,
    event::RunId,
    proto::v1,
    reason::{Reason, Refusal},
    sequencer::cancelled_by_operator,
};

/// How long a reason may be, in characters.
const REASON_CHARS: usize = 1_024;

/// How often the run is looked up again where it changed between the look and the append.
const ATTEMPTS: usize = 3;

/// Ends a run and those below it, by an ordinary append in its user's order. A run that has ended keeps its state.
///
/// # Errors
/// `NOT_FOUND`, `INVALID_REQUEST`, and those of an append.
pub(super) async fn cancel(
    service: &OperatorService,
    operator: &Principal,
    request: v1::CancelRunRequest,
) -> Result<v1::CancelRunResponse, Refusal> {
    let tenant = Tenants::one(operator, &request.tenant_id)?;
    let invalid =
        |field: &str, rule: String| Refusal::invalid_field(Reason::InvalidRequest, field, rule);
    let run_id =
        RunId::new(&request.run_id).map_err(|error| invalid("run_id", error.to_string()))?;
    if request.reason.chars().count() > REASON_CHARS {
        let rule = format!("must have at most {REASON_CHARS} characters");
        return Err(invalid("reason", rule));
    }
    let mut attempt = 0;
    loop {
        let known = find(service, tenant.clone(), run_id.clone()).await;
        let known = known.map_err(unavailable)?;
        let known = known.ok_or_else(|| not_found(&request.run_id))?;
        if !known.run.state.is_open() {
            return Ok(v1::CancelRunResponse {
                state: v1::RunState::from(known.run.state).into(),
                receipt: None,
            });
        }
        let (stream, subject) = (known.stream, &operator.subject);
        let event = cancelled_by_operator(&stream, &run_id, &known.run, subject, &request.reason);
        let stored = service
            .sequencer
            .submit(stream, vec![Arc::new(event)], None);
        match stored.await.pop() {
            Some(Ok(receipt)) => {
                return Ok(v1::CancelRunResponse {
                    state: v1::RunState::Cancelled.into(),
                    receipt: Some((&receipt).into()),
                });
            }
            Some(Err(refusal)) => {
                attempt += 1;
                // Its own end, or that by another operator, came first: the next look shows it.
                let was_late = matches!(refusal.reason, Reason::RunEnded | Reason::EventIdReused);
                if !was_late || attempt == ATTEMPTS {
                    return Err(refusal);
                }
            }
            None => return Err(not_found(&request.run_id)),
        }
    }
}
