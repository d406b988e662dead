//! `emitter repair`.

use std::{path::PathBuf, process::ExitCode};

use bytesize::ByteSize;
use clap::Args;

use super::{Failure, say};
use crate::{
    clock::{Clock, Entropy},
    engine::durable::{self, Inspection},
};

/// Look into a data directory, or give one that was restored its new epoch
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  emitter repair /var/lib/emitter
      what can be read, and under which epoch the next start goes on
  emitter repair /var/lib/emitter --new-epoch
      after a backup or a snapshot was restored: readers are told by a gap that
      what they have read before may not be what is there now

No service may have the directory open. What cannot be read at the end of the
store's journal is cut off, as a start would do: copy the directory first if it
matters. A directory that was copied file by file gets a new epoch by itself.

Exit code 1 if the directory cannot be used.")]
pub(super) struct Repair {
    /// The data directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Give it a new epoch
    #[arg(long)]
    new_epoch: bool,
    /// Print one line of JSON
    #[arg(long, env = "EMITTER_JSON")]
    json: bool,
}

impl Repair {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let clock = Clock::system();
        let failed = |error| Failure::Failed(format!("{}: {error}", self.directory.display()));
        let found = durable::inspect(&self.directory, &clock).map_err(failed)?;
        let renewed = match self.new_epoch {
            true => Some(
                durable::renew_epoch(&self.directory, &clock, &Entropy::system())
                    .map_err(failed)?,
            ),
            false => None,
        };
        if self.json {
            say(&json(&found, renewed.map(|epoch| epoch.to_string())))?;
        } else {
            say(told(&found).trim_end())?;
            if let Some(epoch) = renewed {
                say(&format!("\nIts epoch is {epoch} from now on."))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn told(found: &Inspection) -> String {
    let since = match found.epoch_since {
        Some(since) => format!("since {since}"),
        None => "since the directory was made".to_owned(),
    };
    let next = match found.new_epoch {
        Some(why) => format!("begins a new epoch: {why}"),
        None => "goes on under this epoch: nothing acknowledged is missing".to_owned(),
    };
    let missing = match found.holes {
        0 => String::new(),
        holes => format!(", {holes} streams end before a hole"),
    };
    format!(
        "epoch       {} {since}
records     {} of {} readable, up to offset {}{missing}
streams     {}, {} open runs
on disk     {}
next start  {next}
",
        found.epoch,
        found.records,
        found.records_counted,
        found.newest.0,
        found.streams,
        found.open_runs,
        ByteSize(found.disk_space),
    )
}

fn json(found: &Inspection, renewed: Option<String>) -> String {
    serde_json::json!({
        "epoch": found.epoch.to_string(),
        "epoch_since": found.epoch_since.map(|since| since.to_string()),
        "newest_offset": found.newest.0,
        "streams": found.streams,
        "records": found.records,
        "records_counted": found.records_counted,
        "open_runs": found.open_runs,
        "holes": found.holes,
        "disk_bytes": found.disk_space,
        "new_epoch_because": found.new_epoch,
        "renewed_epoch": renewed,
    })
    .to_string()
}
