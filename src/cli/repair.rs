//! `emitter repair`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use bytesize::ByteSize;
use clap::Args;

use super::{Failure, logs, say};
use crate::{
    clock::{Clock, Entropy},
    config::Log,
    engine::durable::{self, Inspection, NextStart, OpenError, Readable},
};

/// Look into a data directory, give one that was restored its new epoch, or take
/// what can be read of a damaged one to a new one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  emitter repair /var/lib/emitter
      what can be read, what is damaged, and what the next start does
  emitter repair /var/lib/emitter --new-epoch
      after a backup or a snapshot was restored: readers are told by a gap that
      what they have read before may not be what is there now
  emitter repair /var/lib/emitter --into /var/lib/emitter-2
      what can be read goes to a new directory, under a new epoch

No service may have the directory open. Nothing but --new-epoch changes what is
in it. To look into it, its journals (about 128 MiB) are copied for a moment,
into the directory, or where it cannot be written, to the temporary one. NEW
must lie elsewhere, takes as much room as DIR, is made as NEW.part, and gets the
mode and, for root, the owner of DIR. A directory that was copied file by file
gets a new epoch by itself.

Exit code 1 if a start would refuse the directory.")]
pub(super) struct Repair {
    /// The data directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Give it a new epoch
    #[arg(long, conflicts_with = "into")]
    new_epoch: bool,
    /// Take what can be read to this directory, which must not be there yet
    #[arg(long, value_name = "NEW")]
    into: Option<PathBuf>,
    /// Print one line of JSON
    #[arg(long, env = "EMITTER_JSON")]
    json: bool,
}

impl Repair {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        logs::begin(&Log {
            level: "warn".into(),
            json: false,
        });
        let (clock, entropy) = (Clock::system(), Entropy::system());
        let (mut at, mut renewed) = (&self.directory, None);
        if let Some(into) = &self.into {
            let taken = durable::take_over(at, into, &clock, &entropy);
            renewed = Some(taken.map_err(|error| match error {
                // It says itself which file.
                OpenError::Io(error) => Failure::Failed(error.to_string()),
                error => failed(at, error),
            })?);
            at = into;
        } else if self.new_epoch {
            let given = durable::renew_epoch(at, &clock, &entropy);
            renewed = Some(given.map_err(|error| failed(at, error))?);
        }
        // What is so from now on.
        let found = durable::inspect(at, &clock).map_err(|error| failed(at, error))?;
        if self.json {
            say(&json(&found, renewed.map(|epoch| epoch.to_string())))?;
        } else {
            say(told(&found).trim_end())?;
            if renewed.is_some() {
                say(&format!("\n{} has a new epoch.", at.display()))?;
            }
        }
        Ok(match found.next_start {
            NextStart::Refuses(_) => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        })
    }
}

fn failed(directory: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("{}: {error}", directory.display()))
}

fn told(found: &Inspection) -> String {
    let mut told = match &found.readable {
        Some(readable) => told_of(readable),
        None => "readable    nothing for certain\n".to_owned(),
    };
    if let Some((journal, byte)) = &found.cut_off {
        told += &format!("cut off     journal {journal} from byte {byte} on: no whole batch\n");
    }
    told += &format!("on disk     {}\n", ByteSize(found.disk_space));
    let next = match &found.next_start {
        NextStart::GoesOn => "goes on under this epoch: nothing acknowledged is missing".to_owned(),
        NextStart::NewEpoch(why) => format!("begins a new epoch: {why}"),
        NextStart::Refuses(damage) => format!("refuses, it is damaged: {damage}"),
    };
    told + &format!("next start  {next}\n")
}

fn told_of(readable: &Readable) -> String {
    let since = match readable.epoch_since {
        Some(since) => format!("since {since}"),
        None => "since the directory was made".to_owned(),
    };
    let holes = match readable.holes {
        0 => String::new(),
        holes => format!(", {holes} streams end before a hole"),
    };
    let missing = match readable.missing_groups {
        0 => String::new(),
        groups => format!("missing     acknowledged groups after that: {groups}\n"),
    };
    let runs = match readable.open_runs {
        Some(runs) => format!(", {runs} open runs"),
        None => String::new(),
    };
    format!(
        "epoch       {} {since}
records     {} of {} readable, up to offset {}{holes}
{missing}streams     {}{runs}
",
        readable.epoch,
        readable.records,
        readable.records_counted,
        readable.newest.0,
        readable.streams,
    )
}

fn json(found: &Inspection, renewed: Option<String>) -> String {
    let (next_start, why) = match &found.next_start {
        NextStart::GoesOn => ("goes_on", None),
        NextStart::NewEpoch(why) => ("new_epoch", Some(*why)),
        NextStart::Refuses(damage) => ("refuses", Some(damage.as_str())),
    };
    let readable = found.readable.as_ref().map(|readable| {
        serde_json::json!({
            "epoch": readable.epoch.to_string(),
            "epoch_since": readable.epoch_since.map(|since| since.to_string()),
            "newest_offset": readable.newest.0,
            "missing_groups": readable.missing_groups,
            "streams": readable.streams,
            "records": readable.records,
            "records_counted": readable.records_counted,
            "open_runs": readable.open_runs,
            "holes": readable.holes,
        })
    });
    let cut_off = found.cut_off.as_ref();
    serde_json::json!({
        "readable": readable,
        "cut_off": cut_off.map(|(journal, byte)| serde_json::json!({ "journal": journal, "byte": byte })),
        "disk_bytes": found.disk_space,
        "next_start": next_start,
        "because": why,
        "renewed_epoch": renewed,
    })
    .to_string()
}
