//! `emitter sources`.

use std::process::ExitCode;

use clap::Args;

use super::{
    Environment, Failure,
    ask::{Ask, answered},
    runs::{json, words},
    say, table,
    text::plain,
    warn,
};
use crate::{
    clock::{Clock, Timestamp},
    proto::v1::{ListSourceRefusalsRequest, SourceRefusal},
};

/// List competing sources: those that a node refused because another one owned the run
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  emitter sources
      which emitters write into runs of others: duplicates to be found and ended
  emitter sources --json
      one JSON object per line, for scripts")]
pub(super) struct Sources {
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    ask: Ask,
}

impl Sources {
    pub(super) fn run(&self, environment: &Environment) -> Result<ExitCode, Failure> {
        let request = ListSourceRefusalsRequest {
            tenant_id: self.ask.tenant_id(),
            page_size: self.limit,
        };
        let found = self.ask.of_service(environment, async |operator| {
            answered(operator.list_source_refusals(request).await)
        })?;
        let refused = &found.source_refusals;
        if self.ask.json {
            let mut lines = refused.iter().map(json::source_refusal);
            lines.try_for_each(|line| say(&line.to_string()))?;
            return Ok(ExitCode::SUCCESS);
        }
        if refused.is_empty() {
            warn("no competing sources");
            return Ok(ExitCode::SUCCESS);
        }
        let now = Clock::system().now();
        let rows: Vec<_> = refused.iter().map(|one| row(one, now)).collect();
        let heading = [
            "REFUSED", "OWNER", "RUN", "USER", "REASON", "EVENTS", "LAST",
        ];
        say(table::text(heading, &rows).trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}

fn row(refused: &SourceRefusal, now: Timestamp) -> [String; 7] {
    let named = |source: &Option<_>| source.as_ref().map_or("-".to_owned(), words::source);
    let last = now.since(words::moment(refused.last_at.as_ref()));
    [
        named(&refused.refused),
        named(&refused.owner),
        plain(&refused.run_id).into_owned(),
        plain(&refused.user_id).into_owned(),
        plain(&refused.reason).into_owned(),
        refused.count.to_string(),
        format!("{} ago", words::age(last)),
    ]
}
