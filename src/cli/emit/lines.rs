//! Lines of standard input.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Stdin};

use crate::cli::Failure;

/// How long a batch that is not full waits for another line.
const LINGER: Duration = Duration::from_millis(20);

/// Lines of standard input.
pub(super) struct Lines {
    lines: tokio::io::Lines<BufReader<Stdin>>,
    number: usize,
    ended: bool,
}

impl Lines {
    pub(super) fn of_stdin() -> Self {
        Self {
            lines: BufReader::new(tokio::io::stdin()).lines(),
            number: 0,
            ended: false,
        }
    }

    /// Whether there is no more.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// The number of the last line, counted from 1.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// The next line that is not empty; `None` at the end, or, where the caller is in a `hurry`, when none comes soon.
    pub(super) async fn next(&mut self, hurry: bool) -> Result<Option<String>, Failure> {
        loop {
            let reading = self.lines.next_line();
            let line = if hurry {
                match tokio::time::timeout(LINGER, reading).await {
                    Ok(line) => line?,
                    Err(_) => return Ok(None),
                }
            } else {
                reading.await?
            };
            self.number += 1;
            match line {
                None => {
                    self.ended = true;
                    return Ok(None);
                }
                Some(line) if line.trim().is_empty() => {}
                Some(line) => return Ok(Some(line)),
            }
        }
    }
}
