//! What was consumed.

mod asked;
mod rows;

use super::{
    OperatorService,
    grpc::{Tenants, unavailable},
};
use crate::{
    access::Principal,
    engine::{EngineError, RunQuery},
    event::RunId,
    proto::v1,
    reason::Refusal,
    usage::Series,
};
use asked::Asked;
use rows::{Part, Rows};

/// How many runs are asked for at once.
const RUNS: usize = 4_000;

/// Adds usage up.
pub(super) async fn get(
    service: &OperatorService,
    operator: &Principal,
    request: v1::GetUsageRequest,
) -> Result<v1::GetUsageResponse, Refusal> {
    let tenant = Tenants::asked(operator, &request.tenant_id)?.only();
    let asked = Asked::of(tenant, &request)?;
    let rows = match asked.by_run() {
        true => of_runs(service, asked).await,
        false => of_series(service, asked).await,
    };
    Ok(rows.map_err(unavailable)?.into_answer())
}

/// What all events have consumed, for as long as days are kept.
async fn of_series(service: &OperatorService, asked: Asked) -> Result<Rows, EngineError> {
    let parts = service.engine.usage(&asked.query).await?;
    let mut rows = Rows::new(asked.groups);
    for (series, sum) in parts {
        let Series {
            tenant,
            day,
            user,
            thread_id,
            model,
        } = series;
        rows.add(&Part {
            tenant: &tenant,
            user: user.as_ref(),
            thread_id: thread_id.as_ref(),
            run_id: None,
            day: Some(day),
            model: &model,
            sum: &sum,
        });
        // There may be many, and others wait.
        tokio::task::consume_budget().await;
    }
    Ok(rows)
}

/// What the runs that are known have consumed.
async fn of_runs(service: &OperatorService, asked: Asked) -> Result<Rows, EngineError> {
    let query = &asked.query;
    let is_asked_for = |run_id: &RunId| asked.run_id.as_ref().is_none_or(|id| id == run_id);
    let mut rows = Rows::new(asked.groups);
    let mut page = RunQuery {
        tenant: query.tenant.clone(),
        user: query.user.clone(),
        thread_id: query.thread_id.clone(),
        limit: RUNS,
        ..RunQuery::default()
    };
    loop {
        let runs = service.engine.runs(&page).await?;
        for known in runs.iter().filter(|known| is_asked_for(&known.run_id)) {
            let parts = known.run.usage.iter();
            for (model, sum) in parts.filter(|(model, _)| query.admits_model(model)) {
                rows.add(&Part {
                    tenant: known.stream.tenant(),
                    user: Some(known.stream.user()),
                    thread_id: known.run.thread_id.as_ref(),
                    run_id: Some(&known.run_id),
                    day: None,
                    model,
                    sum,
                });
            }
            tokio::task::consume_budget().await;
        }
        match runs.last() {
            Some(last) if runs.len() == RUNS => page.after = Some(last.place()),
            _ => return Ok(rows),
        }
    }
}
