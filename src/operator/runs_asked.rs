//! Which runs a request asks for.

use crate::{
    clock::Timestamp,
    engine::RunQuery,
    event::{AgentName, IdError, RunId, Tenant, ThreadId, UserId},
    proto::v1,
    reason::{Reason, Refusal, Violation},
    run::RunState,
};

use super::{page_token::Filters, refused_sources::page_size, run::state_asked};

/// How many runs are listed where the request does not say, and at most.
const PAGE: (usize, usize) = (100, 1_000);

/// The first second after what a protobuf timestamp may hold: 10000-01-01.
const END_OF_TIME: i64 = 253_402_300_800;

/// What `request` asks for, of `tenant` or of all of them; a token must be one of its `filters`.
///
/// # Errors
/// `INVALID_REQUEST`, with every field at fault.
pub(super) fn asked(
    request: v1::ListRunsRequest,
    tenant: Option<Tenant>,
    filters: &Filters,
) -> Result<RunQuery, Refusal> {
    let mut wrong = Wrong::default();
    let after = match request.page_token.as_str() {
        "" => None,
        token => wrong.none("page_token", || {
            filters.place(token).ok_or("is not one of this list")
        }),
    };
    let query = RunQuery {
        tenant,
        user: wrong.id("user_id", &request.user_id, UserId::new),
        thread_id: wrong.id("thread_id", &request.thread_id, ThreadId::new),
        agent_name: wrong.id("agent_name", &request.agent_name, AgentName::new),
        parent_run_id: wrong.id("parent_run_id", &request.parent_run_id, RunId::new),
        states: wrong.states(&request.states),
        started_from: wrong.moment("started_after", request.started_after),
        started_before: wrong.moment("started_before", request.started_before),
        after,
        limit: wrong.page_size(request.page_size),
    };
    match wrong.0.is_empty() {
        true => Ok(query),
        false => Err(Refusal::invalid(Reason::InvalidRequest, wrong.0)),
    }
}

/// The fields at fault.
#[derive(Default)]
struct Wrong(Vec<Violation>);

impl Wrong {
    /// What `parse` makes of `field`, or nothing where that is at fault.
    fn none<T, E: ToString>(
        &mut self,
        field: impl Into<String>,
        parse: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        let note = |error: E| {
            self.0.push(Violation {
                field: field.into(),
                description: error.to_string(),
            });
        };
        parse().map_err(note).ok()
    }

    fn id<T>(
        &mut self,
        field: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, IdError>,
    ) -> Option<T> {
        match text {
            "" => None,
            text => self.none(field, || parse(text)),
        }
    }

    fn states(&mut self, asked: &[i32]) -> Vec<RunState> {
        let states = asked.iter().enumerate().filter_map(|(index, asked)| {
            self.none(format!("states[{index}]"), || {
                state_asked(*asked).ok_or("is not a state")
            })
        });
        states.collect()
    }

    fn moment(&mut self, field: &str, asked: Option<prost_types::Timestamp>) -> Option<Timestamp> {
        let asked = asked?;
        self.none(field, || {
            moment(&asked).ok_or("must be between 0001-01-01 and 9999-12-31")
        })
    }

    fn page_size(&mut self, asked: u32) -> usize {
        page_size(asked, PAGE).unwrap_or_else(|refusal| {
            self.0.extend(refusal.violations);
            0
        })
    }
}

/// The first whole millisecond at `asked` or later: runs start at whole ones. What was before 1970 is 1970.
fn moment(asked: &prost_types::Timestamp) -> Option<Timestamp> {
    const START_OF_TIME: i64 = -62_135_596_800;
    let valid = (START_OF_TIME..END_OF_TIME).contains(&asked.seconds)
        && (0..1_000_000_000).contains(&asked.nanos);
    let seconds = u64::try_from(asked.seconds);
    let millis =
        |seconds: u64| seconds * 1_000 + u64::from(asked.nanos.unsigned_abs()).div_ceil(1_000_000);
    valid.then(|| Timestamp::from_millis(seconds.map_or(0, millis)))
}

#[cfg(test)]
mod tests;
