//! `emitter tail`.

use std::{
    io::{IsTerminal as _, stdout},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, ValueEnum};

use super::{Environment, Failure, render, say, target::Target, text::plain, variable, warn};
use crate::{
    access::Scope,
    client::{Item, Reader, ReaderConfig, Start},
    event::Position,
};

/// Print a user's events as they come
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  emitter tail --user demo
      what the user `demo` sees from now on; comes back by itself when the
      service does
  emitter tail --user demo --from oldest --types agent_started,agent_completed
  emitter tail --user demo --from acked --client-id screen
      what `screen` has not printed yet, also after a restart of this command
  emitter tail --user demo --json --count 5
      the next five events as JSON lines, for scripts
  emitter tail --http http://events.example:8080 --token \"$TOKEN\"
      any service: the token says whose stream it is")]
pub(super) struct Tail {
    /// The user to be, with `emitter dev`
    #[arg(long)]
    user: Option<String>,
    /// Where to begin
    #[arg(long, value_enum, default_value_t = From::Head, requires_if("acked", "client_id"))]
    from: From,
    /// Name this client, and acknowledge what was printed
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Begin after this position, such as 00000000000000ab-42
    #[arg(long, value_name = "POSITION", conflicts_with = "from")]
    after: Option<Position>,
    /// Only this thread
    #[arg(long)]
    thread: Option<String>,
    /// Only this run
    #[arg(long)]
    run: Option<String>,
    /// Only these types, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "TYPE")]
    types: Vec<String>,
    /// Whether deltas may come joined when this lags
    #[arg(long, value_name = "BOOL")]
    join: Option<bool>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print the frames as they come, one JSON object per line
    #[arg(long, env = "EMITTER_JSON")]
    json: bool,
    /// The service's HTTP address, such as http://127.0.0.1:8080 [default: that of `emitter dev`]
    #[arg(long, value_name = "URL", env = "EMITTER_HTTP")]
    http: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum From {
    /// Only what comes from now on
    Head,
    /// Everything that is kept
    Oldest,
    /// The oldest run that is still open
    Open,
    /// What this client acknowledged last
    Acked,
}

impl Tail {
    pub(super) fn run(self, environment: &Environment) -> Result<ExitCode, Failure> {
        let (address, credential) = self.target.resolve(
            self.http.as_deref(),
            |session| &session.http,
            (self.user.as_deref(), Scope::Subscribe),
            environment,
        )?;
        let reader = Reader::new(address, credential, self.reader_config())?;
        let coloured = stdout().is_terminal() && variable(environment, "NO_COLOR").is_none();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.follow(reader, coloured))?;
        Ok(ExitCode::SUCCESS)
    }

    fn reader_config(&self) -> ReaderConfig {
        let start = match (self.after, self.from) {
            (Some(position), _) => Start::After(position),
            (None, From::Head) => Start::Head,
            (None, From::Oldest) => Start::Oldest,
            (None, From::Open) => Start::Open,
            (None, From::Acked) => Start::Acked,
        };
        ReaderConfig {
            start,
            client_id: self.client_id.clone(),
            thread_id: self.thread.clone(),
            run_id: self.run.clone(),
            types: self.types.clone(),
            join: self.join,
            ..ReaderConfig::default()
        }
    }

    /// Prints what comes until there were enough events, or the server says not to come back.
    async fn follow(&self, mut reader: Reader, coloured: bool) -> Result<(), Failure> {
        let mut events = 0;
        while self.count.is_none_or(|count| events < count) {
            let item = reader
                .next()
                .await
                .map_err(|stopped| Failure::Failed(plain(&stopped.to_string()).into_owned()))?;
            if matches!(item, Item::Event(_)) {
                events += 1;
            }
            self.print(&item, reader.url(), coloured)?;
        }
        reader.acknowledge().await;
        Ok(())
    }

    fn print(&self, item: &Item, url: &str, coloured: bool) -> Result<(), Failure> {
        match item {
            Item::Disconnected { reason, retry_in } => {
                let millis = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
                let wait = humantime::format_duration(Duration::from_millis(millis));
                let reason = plain(reason);
                warn(&format!(
                    "disconnected from {url}: {reason}; again in {wait}"
                ));
                Ok(())
            }
            Item::Event(frame) if !self.json => say(&render::line(&frame.fields(), coloured)),
            Item::Event(frame)
            | Item::Established(frame)
            | Item::Gap(frame)
            | Item::CaughtUp(frame)
            | Item::Notice(frame) => {
                if self.json {
                    return say(frame.text());
                }
                if let Some(line) = render::control(frame) {
                    warn(&line);
                }
                Ok(())
            }
        }
    }
}
