//! Which sources were refused because another owned the run.

use crate::{
    access::Principal,
    event::Tenant,
    proto::v1,
    reason::{Reason, Refusal},
    sequencer::RefusedSource,
};

use super::{OperatorService, grpc::Tenants};

/// How many are listed where the request does not say, and at most.
const PAGE: (usize, usize) = (100, 1_000);

/// Lists refused sources, the most recent first.
pub(super) async fn list(
    service: &OperatorService,
    operator: &Principal,
    request: v1::ListSourceRefusalsRequest,
) -> Result<v1::ListSourceRefusalsResponse, Refusal> {
    let tenants = Tenants::asked(operator, &request.tenant_id)?;
    let most = page_size(request.page_size, PAGE)?;
    let refused = service.sequencer.refused_sources();
    let tenant: Option<&Tenant> = match &tenants {
        Tenants::One(tenant) => Some(tenant),
        Tenants::Every => None,
    };
    let recent = refused.recent(most, |refused| tenants.contain(refused.stream.tenant()));
    Ok(v1::ListSourceRefusalsResponse {
        source_refusals: recent.iter().map(told).collect(),
        refused_events: refused.count(tenant),
    })
}

/// `refused` on the wire.
pub(super) fn told(refused: &RefusedSource) -> v1::SourceRefusal {
    v1::SourceRefusal {
        tenant_id: refused.stream.tenant().as_str().to_owned(),
        user_id: refused.stream.user().as_str().to_owned(),
        run_id: refused.run_id.as_str().to_owned(),
        owner: Some((&refused.owner).into()),
        refused: Some((&refused.refused).into()),
        reason: refused.reason.name().to_owned(),
        count: refused.count,
        first_at: Some(refused.first_at.into()),
        last_at: Some(refused.last_at.into()),
    }
}

/// How many items a page has, of which `asked` says how many, or 0 for as many as usual.
///
/// # Errors
/// `INVALID_REQUEST` beyond the most.
pub(super) fn page_size(asked: u32, (usual, most): (usize, usize)) -> Result<usize, Refusal> {
    match asked as usize {
        0 => Ok(usual),
        asked if asked <= most => Ok(asked),
        _ => Err(Refusal::invalid_field(
            Reason::InvalidRequest,
            "page_size",
            format!("must be at most {most}"),
        )),
    }
}
