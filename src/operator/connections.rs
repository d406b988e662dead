//! Who reads, on this node.

use crate::{
    access::Principal,
    proto::v1,
    reason::{Reason, Refusal},
};

use super::OperatorService;

/// Lists connections.
pub(super) async fn list(
    _service: &OperatorService,
    _operator: &Principal,
    _request: v1::ListConnectionsRequest,
) -> Result<v1::ListConnectionsResponse, Refusal> {
    Err(Refusal::new(Reason::Unimplemented, "not yet"))
}

/// Ends connections.
pub(super) async fn disconnect(
    _service: &OperatorService,
    _operator: &Principal,
    _request: v1::DisconnectRequest,
) -> Result<v1::DisconnectResponse, Refusal> {
    Err(Refusal::new(Reason::Unimplemented, "not yet"))
}
