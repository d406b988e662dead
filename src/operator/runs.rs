//! Runs: which there are, and one of them whole.

use prost::Message as _;

use crate::{
    access::Principal,
    engine::{EngineError, Key, KnownRun, RunQuery, claim},
    event::{Position, RunId, StreamKey, Tenant},
    proto::v1,
    reason::{Reason, Refusal},
};

use super::{
    OperatorService, connections,
    grpc::{Tenants, unavailable},
    page_token::Filters,
    refused_sources, run,
    runs_asked::asked,
    timeline::Timeline,
};

/// How many bytes of runs a page has at most, so that every client takes it: the usual bound is 4 MiB.
const PAGE_BYTES: usize = 3 << 20;

/// How many refused sources are shown with a run.
const SOURCE_REFUSALS: usize = 100;

/// Lists runs.
pub(super) async fn list(
    service: &OperatorService,
    operator: &Principal,
    request: v1::ListRunsRequest,
) -> Result<v1::ListRunsResponse, Refusal> {
    let tenant = Tenants::asked(operator, &request.tenant_id)?.only();
    let filters = Filters::of(&request, tenant.as_ref());
    let asked = asked(request, tenant, &filters)?;
    // One more than is shown tells whether there is another page.
    let limit = asked.limit + 1;
    let query = RunQuery { limit, ..asked };
    let known = service.engine.runs(&query).await.map_err(unavailable)?;
    let page = page(service, &known, limit - 1)
        .await
        .map_err(unavailable)?;
    let last = page.len().checked_sub(1).and_then(|last| known.get(last));
    let goes_on = last.filter(|_| page.len() < known.len());
    Ok(v1::ListRunsResponse {
        runs: page,
        next_page_token: goes_on.map_or_else(String::new, |last| filters.token(&last.place())),
    })
}

/// As many of `known` as go on one page of `most` runs.
async fn page(
    service: &OperatorService,
    known: &[KnownRun],
    most: usize,
) -> Result<Vec<v1::Run>, EngineError> {
    let mut page = Vec::new();
    let mut bytes = 0;
    for known in known.iter().take(most) {
        let told = run::told(&*service.engine, known).await?;
        bytes += told.encoded_len();
        if bytes > PAGE_BYTES && !page.is_empty() {
            break;
        }
        page.push(told);
    }
    Ok(page)
}

/// Shows one run.
pub(super) async fn get(
    service: &OperatorService,
    operator: &Principal,
    request: v1::GetRunRequest,
) -> Result<v1::GetRunResponse, Refusal> {
    let tenant = Tenants::one(operator, &request.tenant_id)?;
    let run_id = RunId::new(&request.run_id).map_err(|error| {
        Refusal::invalid_field(Reason::InvalidRequest, "run_id", error.to_string())
    })?;
    let known = find(service, tenant, run_id).await.map_err(unavailable)?;
    let known = known.ok_or_else(|| not_found(&request.run_id))?;
    show(service, &known).await.map_err(unavailable)
}

pub(super) fn not_found(run_id: &str) -> Refusal {
    let message = "no such run is known: runs are known while they are open, and as long as events are retained";
    Refusal::new(Reason::NotFound, message).with("run_id", run_id)
}

/// The run, whose user follows from the claim on its id.
pub(super) async fn find(
    service: &OperatorService,
    tenant: Tenant,
    run_id: RunId,
) -> Result<Option<KnownRun>, EngineError> {
    let engine = &service.engine;
    let key = Key::RunClaim(tenant.clone(), run_id.clone());
    let there = engine.get(&key).await?;
    let Some(user) = there.and_then(|there| claim::user(&there.value)) else {
        return Ok(None);
    };
    let stream = StreamKey::new(tenant, user);
    let run = engine.run(&stream, &run_id).await?;
    Ok(run.map(|run| KnownRun {
        stream,
        run_id,
        run,
    }))
}

async fn show(
    service: &OperatorService,
    known: &KnownRun,
) -> Result<v1::GetRunResponse, EngineError> {
    let engine = &*service.engine;
    let timeline = Timeline::of(engine, known).await?;
    let last = Position::new(timeline.epoch, known.run.last);
    let children = known.run.open_children.iter();
    Ok(v1::GetRunResponse {
        run: Some(run::told(engine, known).await?),
        timeline: timeline.items,
        timeline_truncated: timeline.truncated,
        usage: run::usage(&known.run),
        source_refusals: source_refusals(service, known),
        delivery: Some(connections::delivery(service, &known.stream, last).await?),
        open_children: children.map(|id| id.as_str().to_owned()).collect(),
    })
}

/// Which sources were refused since the run began; its id may have been another's before.
fn source_refusals(service: &OperatorService, known: &KnownRun) -> Vec<v1::SourceRefusal> {
    let refused = service.sequencer.refused_sources();
    let refused = refused.recent(SOURCE_REFUSALS, |refused| {
        refused.stream == known.stream
            && refused.run_id == known.run_id
            && refused.last_at >= known.run.started_at
    });
    refused.iter().map(refused_sources::told).collect()
}
