//! What was consumed.

use crate::{
    access::Principal,
    proto::v1,
    reason::{Reason, Refusal},
};

use super::OperatorService;

/// Adds usage up.
pub(super) async fn get(
    _service: &OperatorService,
    _operator: &Principal,
    _request: v1::GetUsageRequest,
) -> Result<v1::GetUsageResponse, Refusal> {
    Err(Refusal::new(Reason::Unimplemented, "not yet"))
}
