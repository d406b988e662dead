//! `emitter runs`.

pub(super) mod json;
mod lanes;
mod show;
mod table;
pub(super) mod words;

use std::{
    io::{IsTerminal as _, stdout},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};

use super::{
    Environment, Failure,
    ask::{Ask, answered},
    say,
    text::plain,
    variable, warn,
};
use crate::{
    client::Operator,
    clock::{Clock, Timestamp},
    proto::v1::{CancelRunRequest, GetRunRequest, ListRunsRequest, Run, RunState},
};

/// List runs, show one of them, or end it
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  emitter runs
      the runs that started last
  emitter runs --user demo --state failed,cancelled --since 1h
  emitter runs show r1
      one run whole: its timeline, what it consumed, who wrote into it
  emitter runs cancel r1 --reason 'stuck since noon'
  emitter runs --json --limit 1000
      one JSON object per line, for scripts
  emitter runs --grpc http://events.example:50051 --token \"$TOKEN\"
      any service: the token needs the scope `operate`; one of the tenant `*`
      sees every tenant"
)]
pub(super) struct Runs {
    #[command(subcommand)]
    one: Option<One>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum One {
    Show(Show),
    Cancel(Cancel),
}

/// End a run, and the sub-agents below it, with `agent_cancelled`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  emitter runs cancel r1 --reason 'stuck since noon'")]
struct Cancel {
    /// The run
    #[arg(value_name = "RUN")]
    run_id: String,
    /// Why, for the person who sees the run
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

/// Show one run whole
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  emitter runs show r1
  emitter runs show r1 --json
      one JSON object
  emitter runs show r1 --tenant acme --token \"$TOKEN\"
      with a token of the tenant `*`, which sees every tenant")]
struct Show {
    /// The run
    #[arg(value_name = "RUN")]
    run_id: String,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Debug, Args)]
struct List {
    /// Only runs of this user
    #[arg(long)]
    user: Option<String>,
    /// Only runs of this thread
    #[arg(long)]
    thread: Option<String>,
    /// Only runs of this agent
    #[arg(long)]
    agent: Option<String>,
    /// Only runs in one of these states, separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    state: Vec<State>,
    /// Only runs that started this long ago or later, such as 90s, 15m or 2h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    /// It goes on
    Running,
    /// It waits for a person
    Waiting,
    /// It ended well
    Completed,
    /// It ended in failure
    Failed,
    /// It was cancelled
    Cancelled,
}

/// How many sub-agents are shown with a run: those that started last.
const SUB_AGENTS: u32 = 64;

/// The largest page of the service.
const PAGE: u32 = 1_000;

impl Runs {
    pub(super) fn run(&self, environment: &Environment) -> Result<ExitCode, Failure> {
        let coloured = stdout().is_terminal() && variable(environment, "NO_COLOR").is_none();
        let now = Clock::system().now();
        match &self.one {
            Some(One::Show(show)) => show.run(environment, now, coloured)?,
            Some(One::Cancel(cancel)) => cancel.run(environment)?,
            None => self.list.run(environment, now, coloured)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    fn run(
        &self,
        environment: &Environment,
        now: Timestamp,
        coloured: bool,
    ) -> Result<(), Failure> {
        let request = GetRunRequest {
            tenant_id: self.ask.tenant_id(),
            run_id: self.run_id.clone(),
        };
        let below = ListRunsRequest {
            tenant_id: self.ask.tenant_id(),
            parent_run_id: self.run_id.clone(),
            page_size: SUB_AGENTS,
            ..ListRunsRequest::default()
        };
        let (shown, mut below) = self.ask.of_service(environment, async |operator| {
            let shown = answered(operator.get_run(request).await)?;
            Ok((shown, answered(operator.list_runs(below).await)?.runs))
        })?;
        // A service of an earlier version does not know the filter.
        below.retain(|run| run.parent_run_id == self.run_id);
        if self.ask.json {
            return say(&json::whole(&shown, &below).to_string());
        }
        say(show::text(&shown, &below, now, coloured).trim_end())
    }
}

impl Cancel {
    fn run(&self, environment: &Environment) -> Result<(), Failure> {
        let request = CancelRunRequest {
            tenant_id: self.ask.tenant_id(),
            run_id: self.run_id.clone(),
            reason: self.reason.clone().unwrap_or_default(),
        };
        let ended = self.ask.of_service(environment, async |operator| {
            answered(operator.cancel_run(request).await)
        })?;
        let state = words::state(ended.state);
        if self.ask.json {
            let was_open = ended.receipt.is_some();
            let shown =
                serde_json::json!({ "run_id": self.run_id, "state": state, "was_open": was_open });
            return say(&shown.to_string());
        }
        match ended.receipt {
            Some(_) => say(&format!("run {} is {state}", plain(&self.run_id))),
            None => Err(Failure::Failed(format!(
                "the run had ended before: it is {state}"
            ))),
        }
    }
}

impl List {
    fn run(
        &self,
        environment: &Environment,
        now: Timestamp,
        coloured: bool,
    ) -> Result<(), Failure> {
        let request = self.request(now);
        let (runs, more) = self.ask.of_service(environment, async |operator| {
            self.pages(&operator, request).await
        })?;
        if self.ask.json {
            let mut lines = runs.iter().map(|run| json::run(run).to_string());
            return lines.try_for_each(|line| say(&line));
        }
        if runs.is_empty() {
            warn("no runs");
            return Ok(());
        }
        say(table::text(&runs, now, coloured).trim_end())?;
        if more {
            warn(&format!("there are more than {}: --limit", self.limit));
        }
        Ok(())
    }

    fn request(&self, now: Timestamp) -> ListRunsRequest {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let ago = |since: Duration| {
            let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            Timestamp::from_millis(now.as_millis().saturating_sub(millis))
        };
        ListRunsRequest {
            tenant_id: self.ask.tenant_id(),
            user_id: text(&self.user),
            thread_id: text(&self.thread),
            agent_name: text(&self.agent),
            states: self
                .state
                .iter()
                .map(|state| RunState::from(*state).into())
                .collect(),
            started_after: self.since.map(|since| ago(since).into()),
            ..ListRunsRequest::default()
        }
    }

    /// As many runs as were asked for, and whether there are more.
    async fn pages(
        &self,
        operator: &Operator,
        mut request: ListRunsRequest,
    ) -> Result<(Vec<Run>, bool), Failure> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let mut runs = Vec::new();
        loop {
            let room = u32::try_from(limit - runs.len()).unwrap_or(PAGE);
            request.page_size = room.min(PAGE);
            let page = answered(operator.list_runs(request.clone()).await)?;
            runs.extend(page.runs);
            runs.truncate(limit);
            let more = !page.next_page_token.is_empty();
            if !more || runs.len() == limit {
                return Ok((runs, more));
            }
            request.page_token = page.next_page_token;
        }
    }
}

impl From<State> for RunState {
    fn from(state: State) -> Self {
        match state {
            State::Running => Self::Running,
            State::Waiting => Self::Waiting,
            State::Completed => Self::Completed,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}
