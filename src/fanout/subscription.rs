//! One reader's cursor over one user's stream.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{Entry, Filter, OpenRun, hub::Watched, open_runs, pending::Pending, tail::Ahead};
use crate::{
    engine::{EngineError, OpenRuns, Page, ReadLimit, Watcher},
    event::{Epoch, MAX_OFFSET, Offset, Position},
};

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Only what comes from now on.
    Head,
    /// Everything retained.
    Oldest,
    /// The start of the oldest run that is still open and that the filter admits; the head, if there is none.
    Open,
    /// After this position, exclusive.
    After(Position),
}

/// Why events may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Retention passed the cursor.
    Trimmed,
    /// The stream has a new epoch.
    EpochChanged,
    /// The reader's position is beyond the head.
    PositionAhead,
}

/// Events after `after` and up to `next` may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// The cursor before the gap, exclusive.
    pub after: Position,
    /// The cursor from here on, exclusive.
    pub next: Position,
}

/// What a reader is to be told next.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// Events that the filter admits, in order; not empty.
    Events {
        /// In order.
        entries: Vec<Arc<Entry>>,
        /// The reader lags: deltas may be joined.
        lagging: bool,
        /// They are fresh from their appends, not read back from the engine.
        live: bool,
    },
    /// Events may be missing here.
    Gap(Gap),
    /// The reader has everything up to here that its filter admits.
    CaughtUp(Position),
}

/// A reader that is this many records behind lags.
const LAGGING: usize = 64;

/// How many skipped events are worth telling a reader its new position before it is at the head.
const SKIPPED: usize = 1_000;

/// The least time between two positions told for skipped events alone.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// One reader's cursor over one user's stream: a position, never a queue. Dropping it unregisters the reader.
pub struct Subscription {
    watched: Arc<Watched>,
    filter: Filter,
    /// Everything up to and with it was delivered, skipped by the filter, or told as a gap.
    cursor: Position,
    /// How many events the filter skipped since the reader was last told a position.
    skipped: usize,
    /// When the reader was last told a position, or began.
    told: Instant,
    /// It was told that it caught up, at the head.
    caught_up: bool,
    /// A gap that is to be told before anything else.
    gap: Option<Gap>,
    /// The page after the cursor, where it is being read.
    page: Pending<Page>,
    /// What is open at the cursor or later, where that is being read.
    open: Pending<OpenRuns>,
}

impl Subscription {
    /// Fixes the head and sets the cursor. `watched` is registered already.
    pub(super) async fn start(
        watched: Arc<Watched>,
        start: Start,
        filter: Filter,
    ) -> Result<Self, EngineError> {
        let after = match start {
            Start::Head | Start::Oldest => None,
            Start::Open => {
                let open = watched.hub.engine.open_runs(&watched.stream).await?;
                Some(open_runs::start(open, &filter))
            }
            Start::After(position) => Some(position),
        };
        let limit = ReadLimit {
            records: 1,
            bytes: 1,
        };
        let from = after.map_or(Offset(MAX_OFFSET), |position| position.offset);
        let engine = &watched.hub.engine;
        let page = engine.read(&watched.stream, from, limit).await?;
        // Hints may have been lost since the tail began: a reader that begins is not told that it caught up before this.
        watched.tail.stands_at(page.head);
        let cursor = after.unwrap_or(match start {
            Start::Oldest => Position::new(page.head.epoch, page.trimmed),
            _ => page.head,
        });
        let gap = after.and_then(|position| gap_at(position, &page));
        Ok(Self {
            watched,
            filter,
            cursor,
            skipped: 0,
            told: Instant::now(),
            caught_up: false,
            gap,
            page: Pending::none(),
            open: Pending::none(),
        })
    }

    /// The cursor: everything up to and with it was delivered, skipped by the filter, or told as a gap.
    pub fn position(&self) -> Position {
        self.cursor
    }

    /// The stream's epoch, also where the gap before it is still to be told.
    pub fn epoch(&self) -> Epoch {
        self.gap.map_or(self.cursor, |gap| gap.next).epoch
    }

    /// The open runs that the filter admits, as of the cursor or later; at most [`super::OPEN_RUNS`]. Cancel-safe:
    /// dropped before it is ready, it goes on when it is called again.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn open_runs(&mut self) -> Result<Vec<OpenRun>, EngineError> {
        let watched = &self.watched;
        let begin = || {
            let watched = watched.clone();
            async move { watched.hub.engine.open_runs(&watched.stream).await }.boxed()
        };
        let open = self.open.answer(begin).await?;
        Ok(open_runs::shown(open, &self.filter))
    }

    /// Waits for what is to be told next. At most about `bytes` of record weight in one delivery, but at least one
    /// record. Cancel-safe: dropped before it is ready, it has lost nothing, and what it asked the engine goes on when it
    /// is called again.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn next(&mut self, bytes: usize) -> Result<Delivery, EngineError> {
        let watched = self.watched.clone();
        // What was open is not as of what comes now.
        self.open = Pending::none();
        loop {
            if let Some(gap) = self.gap.take() {
                return Ok(self.pass(gap));
            }
            // Made before looking, so that what comes after the look wakes it.
            let changed = watched.tail.changed();
            let records = watched.hub.config.page_records;
            let ahead = match self.page.is_some() {
                true => Ahead::AskEngine,
                false => watched.tail.ahead_of(self.cursor, records, bytes),
            };
            let delivery = match ahead {
                Ahead::Entries(entries, behind) => self.take(entries, behind >= LAGGING, true),
                Ahead::AskEngine => self.read(&watched, records, bytes).await?,
                Ahead::Nothing => match self.at_head() {
                    AtHead::Tell => {
                        self.caught_up = true;
                        Some(self.tell())
                    }
                    AtHead::Wait(until) => {
                        wait(changed, until).await;
                        None
                    }
                },
            };
            if let Some(delivery) = delivery {
                return Ok(delivery);
            }
        }
    }

    /// Takes the next page from the engine.
    async fn read(
        &mut self,
        watched: &Arc<Watched>,
        records: usize,
        bytes: usize,
    ) -> Result<Option<Delivery>, EngineError> {
        let (limit, after) = (ReadLimit { records, bytes }, self.cursor.offset);
        let begin = || {
            let watched = watched.clone();
            async move { watched.hub.engine.read(&watched.stream, after, limit).await }.boxed()
        };
        let page = self.page.answer(begin).await?;
        if let Some(gap) = gap_at(self.cursor, &page) {
            return Ok(Some(self.pass(gap)));
        }
        let Some(first) = page.records.first() else {
            // Nothing between the cursor and the head: offsets are not dense.
            self.cursor = page.head;
            watched.tail.saw(page.head);
            return Ok(None);
        };
        if first.prev > self.cursor.offset {
            let next = Position::new(page.head.epoch, first.prev);
            return Ok(Some(self.pass(Gap {
                reason: GapReason::Trimmed,
                after: self.cursor,
                next,
            })));
        }
        watched
            .hub
            .metrics
            .lag_records
            .record(page.records.len() as f64);
        let lagging = page.records.len() >= LAGGING;
        let entries = page
            .records
            .into_iter()
            .map(|record| Arc::new(Entry::new(record)));
        Ok(self.take(entries.collect(), lagging, false))
    }

    /// Moves the cursor over `entries` and delivers those that the filter admits.
    fn take(
        &mut self,
        mut entries: Vec<Arc<Entry>>,
        lagging: bool,
        live: bool,
    ) -> Option<Delivery> {
        if let Some(last) = entries.last() {
            self.cursor = last.record.position;
        }
        let all = entries.len();
        entries.retain(|entry| self.filter.admits(&entry.record));
        if let Some(last) = entries.last() {
            let position = last.record.position;
            // What was skipped behind the last one sent is still to be told.
            self.skipped = usize::from(position != self.cursor);
            return Some(Delivery::Events {
                entries,
                lagging,
                live,
            });
        }
        self.skipped += all;
        let due = self.told.elapsed() >= TELL_EVERY;
        (self.skipped >= SKIPPED && due).then(|| self.tell())
    }

    fn at_head(&self) -> AtHead {
        let due = self.told + TELL_EVERY;
        if !self.caught_up {
            AtHead::Tell
        } else if self.skipped == 0 {
            AtHead::Wait(None)
        } else if due <= Instant::now() {
            AtHead::Tell
        } else {
            AtHead::Wait(Some(due))
        }
    }

    fn tell(&mut self) -> Delivery {
        self.skipped = 0;
        self.told = Instant::now();
        Delivery::CaughtUp(self.cursor)
    }

    fn pass(&mut self, gap: Gap) -> Delivery {
        self.cursor = gap.next;
        self.watched.hub.metrics.gaps.increment(1);
        Delivery::Gap(gap)
    }
}

/// What a reader at the head does.
enum AtHead {
    /// It is told so.
    Tell,
    /// It waits, at most until then.
    Wait(Option<Instant>),
}

/// What is missing between a cursor and what `page` says of the stream.
fn gap_at(cursor: Position, page: &Page) -> Option<Gap> {
    let oldest = Position::new(page.head.epoch, page.trimmed);
    let (reason, next) = if cursor.epoch != page.head.epoch {
        (GapReason::EpochChanged, oldest)
    } else if cursor.offset > page.head.offset {
        (GapReason::PositionAhead, page.head)
    } else if cursor.offset < page.trimmed {
        (GapReason::Trimmed, oldest)
    } else {
        return None;
    };
    Some(Gap {
        reason,
        after: cursor,
        next,
    })
}

async fn wait(changed: tokio::sync::futures::Notified<'_>, until: Option<Instant>) {
    match until {
        Some(until) => {
            // Which of the two it was shows at the next look.
            let _either = tokio::time::timeout_at(until, changed).await;
        }
        None => changed.await,
    }
}
