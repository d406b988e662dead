//! `emitter connections` and `emitter disconnect`.

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
    proto::v1::{Connection, DisconnectRequest, ListConnectionsRequest},
};

/// The largest page of the service.
const PAGE: u32 = 1_000;

/// List the readers that are connected to a node
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  emitter connections
      who reads, since when, and how far
  emitter connections --user demo --json
      one JSON object per line, for scripts
  emitter connections --grpc http://node-1.example:50051 --token \"$TOKEN\"
      the readers of that node: the token needs the scope `operate`")]
pub(super) struct Connections {
    /// Only readers of this user
    #[arg(long)]
    user: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    ask: Ask,
}

/// End connections of readers to a node; they may come back
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  emitter disconnect --user demo
      all of this user
  emitter disconnect 4f1c9e0a
      the one of this id, as `emitter connections` prints it")]
pub(super) struct Disconnect {
    /// The connection
    #[arg(value_name = "CONNECTION", required_unless_present = "user")]
    connection_id: Option<String>,
    /// All connections of this user
    #[arg(long)]
    user: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

impl Connections {
    pub(super) fn run(&self, environment: &Environment) -> Result<ExitCode, Failure> {
        let (found, more) = self.find(environment)?;
        if self.ask.json {
            let mut lines = found.iter().map(json::connection);
            lines.try_for_each(|line| say(&line.to_string()))?;
            return Ok(ExitCode::SUCCESS);
        }
        if found.is_empty() {
            warn("no connections");
            return Ok(ExitCode::SUCCESS);
        }
        let now = Clock::system().now();
        let rows: Vec<_> = found.iter().map(|one| row(one, now)).collect();
        let heading = ["CONNECTION", "USER", "CLIENT", "OVER", "SINCE", "POSITION"];
        say(table::text(heading, &rows).trim_end())?;
        if more {
            warn(&format!("there are more than {}: --limit", self.limit));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// At most `limit` connections, and whether there are more.
    fn find(&self, environment: &Environment) -> Result<(Vec<Connection>, bool), Failure> {
        let mut request = ListConnectionsRequest {
            tenant_id: self.ask.tenant_id(),
            user_id: self.user.clone().unwrap_or_default(),
            ..ListConnectionsRequest::default()
        };
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        self.ask.of_service(environment, async |operator| {
            let mut found = Vec::new();
            loop {
                let room = u32::try_from(limit - found.len()).unwrap_or(PAGE);
                request.page_size = room.min(PAGE);
                let page = answered(operator.list_connections(request.clone()).await)?;
                found.extend(page.connections);
                found.truncate(limit);
                let more = !page.next_page_token.is_empty();
                if !more || found.len() == limit {
                    return Ok((found, more));
                }
                request.page_token = page.next_page_token;
            }
        })
    }
}

fn row(connection: &Connection, now: Timestamp) -> [String; 6] {
    let or_dash = |text: &str| match text {
        "" => "-".to_owned(),
        text => plain(text).into_owned(),
    };
    let since = now.since(words::moment(connection.connected_at.as_ref()));
    let position = connection.position.as_ref();
    [
        or_dash(&connection.connection_id),
        or_dash(&connection.user_id),
        or_dash(&connection.client_id),
        words::transport(connection.transport()).to_owned(),
        format!("{} ago", words::age(since)),
        position.map_or("-".to_owned(), |at| {
            format!("{}-{}", plain(&at.epoch), at.offset)
        }),
    ]
}

impl Disconnect {
    pub(super) fn run(&self, environment: &Environment) -> Result<ExitCode, Failure> {
        let request = DisconnectRequest {
            tenant_id: self.ask.tenant_id(),
            user_id: self.user.clone().unwrap_or_default(),
            connection_id: self.connection_id.clone().unwrap_or_default(),
        };
        let ended = self.ask.of_service(environment, async |operator| {
            answered(operator.disconnect(request).await)
        })?;
        let count = ended.disconnected_count;
        if self.ask.json {
            say(&serde_json::json!({ "disconnected_count": count }).to_string())?;
        } else {
            say(&format!("{count} disconnected"))?;
        }
        // A script that names one connection wants to know that there was none.
        Ok(match count {
            0 => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        })
    }
}
