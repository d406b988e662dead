//! Runs: which there are, and one of them whole.

use crate::{
    access::Principal,
    proto::v1,
    reason::{Reason, Refusal},
};

use super::OperatorService;

/// Lists runs.
pub(super) async fn list(
    _service: &OperatorService,
    _operator: &Principal,
    _request: v1::ListRunsRequest,
) -> Result<v1::ListRunsResponse, Refusal> {
    Err(Refusal::new(Reason::Unimplemented, "not yet"))
}

/// Shows one run.
pub(super) async fn get(
    _service: &OperatorService,
    _operator: &Principal,
    _request: v1::GetRunRequest,
) -> Result<v1::GetRunResponse, Refusal> {
    Err(Refusal::new(Reason::Unimplemented, "not yet"))
}
