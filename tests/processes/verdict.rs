//! Compares what producers were told with what readers heard.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::{self, Write as _},
    time::Duration,
};

use super::{
    ledger::{Book, Ledger, Left, Outcome},
    reading::{Heard, Reading, Seen, epoch_changed, replay},
    tools::{PATIENCE, until},
};

/// What a fault is allowed to cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowed {
    /// Acknowledged events of an earlier epoch may be gone, for readers who were told a gap.
    pub(crate) loss_by_epoch: bool,
    /// Events may be left without an answer.
    pub(crate) unknown: bool,
    /// Events may be refused for good: what a loss cost the run before them.
    pub(crate) refused: bool,
    /// Readers may be told gaps.
    pub(crate) gaps: bool,
}

impl Allowed {
    /// Nothing at all.
    pub(crate) const NOTHING: Self = Self {
        loss_by_epoch: false,
        unknown: false,
        refused: false,
        gaps: false,
    };
    /// A gap for those who read across a restart, but no loss.
    pub(crate) const GAPS: Self = Self {
        gaps: true,
        ..Self::NOTHING
    };
    /// Acknowledged events of an earlier epoch, with a gap.
    pub(crate) const LOSS: Self = Self {
        loss_by_epoch: true,
        ..Self::GAPS
    };
}

/// What was found, for the test's output.
pub(crate) struct Verdict {
    pub(crate) problems: Vec<String>,
    events: usize,
    acknowledged: usize,
    lost: usize,
    runs: usize,
    heard: BTreeMap<&'static str, usize>,
    attempts: BTreeMap<String, u64>,
}

/// Waits until every reader has what was acknowledged for its user and every run that was abandoned has its end, then
/// reads every user's stream anew at each of `nodes`, and compares.
///
/// # Panics
/// When anything is wrong, with what was seen.
pub(crate) async fn judge(
    ledger: &Ledger,
    readings: Vec<Reading>,
    nodes: &[String],
    allowed: Allowed,
) -> Verdict {
    let verdict = examine(ledger, readings, nodes, allowed).await;
    let count = verdict.problems.len();
    assert!(count == 0, "{count} problems");
    verdict
}

/// The same, for the caller to say what is wrong.
pub(crate) async fn examine(
    ledger: &Ledger,
    readings: Vec<Reading>,
    nodes: &[String],
    allowed: Allowed,
) -> Verdict {
    let users: HashSet<String> = {
        let book = ledger.book();
        book.events
            .values()
            .map(|entry| entry.user.clone())
            .collect()
    };
    let mut replays = Vec::new();
    for node in nodes {
        for user in &users {
            replays.push((
                node.clone(),
                user.clone(),
                replay_with_ends(ledger, node, user).await,
            ));
        }
    }
    for reading in &readings {
        // What is retained is what can come; what is not must have been told.
        let retained = replays.iter().find(|(_, user, _)| *user == reading.user);
        let ids: Vec<String> = retained
            .map(|(_, _, seen)| seen.iter().map(|seen| seen.event_id.clone()).collect())
            .unwrap_or_default();
        let what = format!("{} has everything", reading.name);
        let complete = until(&what, async || reading.missing(&ids).is_empty());
        // What is missing is told by the verdict.
        let _complete = tokio::time::timeout(PATIENCE - Duration::from_secs(1), complete).await;
    }
    let heard = readings.iter().map(|reading| {
        let heard = reading.heard();
        (reading.name.clone(), reading.user.clone(), heard)
    });
    let heard: Vec<_> = heard.collect();
    let verdict = compare(&ledger.book(), &heard, &replays, allowed);
    println!("{verdict}");
    verdict
}

/// The stream of `user` once the service has ended the runs that were abandoned.
async fn replay_with_ends(ledger: &Ledger, node: &str, user: &str) -> Vec<Seen> {
    let abandoned: HashSet<String> = {
        let book = ledger.book();
        let of_user = book.runs.iter();
        let of_user = of_user.filter(|(_, run)| run.user == user && run.left == Left::Abandoned);
        of_user.map(|(id, _)| id.clone()).collect()
    };
    let since = std::time::Instant::now();
    loop {
        let seen = replay(node, user).await;
        let ended = seen
            .iter()
            .filter(|seen| seen.ends && abandoned.contains(&seen.run));
        // A node that takes over from one that was killed before it began gives runs a minute to come back.
        if ended.count() >= abandoned.len() || since.elapsed() > Duration::from_secs(300) {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn compare(
    book: &Book,
    heard: &[(String, String, Vec<Heard>)],
    replays: &[(String, String, Vec<Seen>)],
    allowed: Allowed,
) -> Verdict {
    let mut problems = book.contradictions.clone();
    if !allowed.refused {
        problems.extend(book.forgotten.iter().cloned());
    }
    for (id, entry) in &book.events {
        match &entry.outcome {
            Outcome::Unknown if !allowed.unknown => problems.push(format!("{id}: no answer")),
            Outcome::Refused(why) if !allowed.refused => problems.push(format!("{id}: {why}")),
            _ => {}
        }
    }
    let mut lost = HashSet::new();
    for (node, user, seen) in replays {
        let name = format!("replay of {user} at {node}");
        check_order(&name, seen, &mut problems);
        check_positions(&name, book, seen, &mut problems);
        check_foreign(&name, book, user, seen, &mut problems);
        check_ends(&name, book, user, seen, allowed, &mut problems);
        let ids: HashSet<&str> = seen.iter().map(|seen| seen.event_id.as_str()).collect();
        let missing = book.acknowledged_of(user).into_iter();
        for id in missing.filter(|id| !ids.contains(id.as_str())) {
            if !allowed.loss_by_epoch || is_of_epoch(book, &id, seen.last()) {
                problems.push(format!(
                    "{name}: {id} is lost: {:?}",
                    book.events[&id].outcome
                ));
            }
            lost.insert(id);
        }
    }
    let mut counts = BTreeMap::new();
    for (name, user, heard) in heard {
        let delivered = delivered(name, heard, allowed, &mut counts, &mut problems);
        check_foreign(name, book, user, &delivered, &mut problems);
        let ids: HashSet<&str> = delivered
            .iter()
            .map(|seen| seen.event_id.as_str())
            .collect();
        let is_told = heard.iter().any(|heard| matches!(heard, Heard::Gap(..)));
        for id in book.acknowledged_of(user) {
            let is_excused = lost.contains(&id) && is_told;
            if !ids.contains(id.as_str()) && !is_excused {
                problems.push(format!(
                    "{name}: {id} did not come: {:?}",
                    book.events[&id].outcome
                ));
            }
        }
    }
    let acknowledged = book.events.values().filter(|entry| entry.is_acknowledged());
    Verdict {
        problems,
        events: book.events.len(),
        acknowledged: acknowledged.count(),
        lost: lost.len(),
        runs: book.runs.len(),
        heard: counts,
        attempts: book.attempts.clone(),
    }
}

/// Whether an event was acknowledged in the epoch of `last`, so that nothing excuses its loss.
fn is_of_epoch(book: &Book, id: &str, last: Option<&Seen>) -> bool {
    let outcome = book.events.get(id).map(|entry| &entry.outcome);
    match (outcome, last) {
        (Some(Outcome::Acknowledged { epoch, .. }), Some(last)) => *epoch == last.epoch,
        _ => false,
    }
}

/// In one epoch offsets increase, ids come once, and a run counts 1, 2, 3.
fn check_order(name: &str, seen: &[Seen], problems: &mut Vec<String>) {
    let mut ids = HashSet::new();
    let mut sequences: HashMap<&str, u64> = HashMap::new();
    for pair in seen.windows(2) {
        if pair[0].epoch != pair[1].epoch || pair[0].offset >= pair[1].offset {
            problems.push(format!("{name}: out of order: {:?}", pair));
        }
    }
    for event in seen {
        if !ids.insert(&event.event_id) {
            problems.push(format!("{name}: twice: {event:?}"));
        }
        let sequence = sequences.entry(&event.run).or_default();
        if event.run_sequence != *sequence + 1 {
            problems.push(format!("{name}: {sequence} is followed by {event:?}"));
        }
        *sequence = event.run_sequence;
    }
}

/// Events stand where their producers were told, and those of one producer in the order in which it sent them.
fn check_positions(name: &str, book: &Book, seen: &[Seen], problems: &mut Vec<String>) {
    let mut last: HashMap<&str, (usize, &str)> = HashMap::new();
    for event in seen {
        let Some(entry) = book.events.get(&event.event_id) else {
            continue;
        };
        if let Outcome::Refused(why) = &entry.outcome {
            problems.push(format!(
                "{name}: refused ({why}), and yet stored: {event:?}"
            ));
        }
        let told = Outcome::Acknowledged {
            epoch: event.epoch.clone(),
            offset: event.offset,
            run_sequence: event.run_sequence,
        };
        if let Outcome::Acknowledged { epoch, .. } = &entry.outcome
            && *epoch == event.epoch
            && entry.outcome != told
        {
            let outcome = &entry.outcome;
            problems.push(format!("{name}: acknowledged as {outcome:?}: {event:?}"));
        }
        let before = last.insert(&entry.writer, (entry.sent, &event.event_id));
        if let Some((sent, id)) = before
            && sent > entry.sent
        {
            problems.push(format!("{name}: {id} was sent after {}", event.event_id));
        }
    }
}

/// Nothing but what was sent to this user, and the service's own ends of runs that were abandoned.
fn check_foreign(name: &str, book: &Book, user: &str, seen: &[Seen], problems: &mut Vec<String>) {
    for event in seen {
        let own = event.event_id.starts_with("emitter:");
        let expected = match book.events.get(&event.event_id) {
            Some(entry) => entry.user == user && entry.run == event.run,
            None => {
                let run = book.runs.get(&event.run);
                own && run.is_some_and(|run| run.user == user && run.left == Left::Abandoned)
            }
        };
        if !expected || event.user != user {
            problems.push(format!("{name}: foreign: {event:?}"));
        }
    }
}

/// Each run that ended or was abandoned has one end, and it is the last event.
fn check_ends(
    name: &str,
    book: &Book,
    user: &str,
    seen: &[Seen],
    allowed: Allowed,
    problems: &mut Vec<String>,
) {
    let mut ends: HashMap<&str, u32> = HashMap::new();
    for event in seen {
        if ends.contains_key(event.run.as_str()) {
            problems.push(format!("{name}: after the end of its run: {event:?}"));
        }
        if event.ends {
            *ends.entry(&event.run).or_default() += 1;
        }
    }
    for (id, run) in book.runs.iter().filter(|(_, run)| run.user == user) {
        let count = ends.get(id.as_str()).copied().unwrap_or(0);
        let is_there = seen.iter().any(|seen| seen.run == *id);
        let is_missing = count == 0 && is_there && run.left != Left::Open;
        if count > 1 || (is_missing && !allowed.loss_by_epoch) {
            problems.push(format!("{name}: {id}, {:?}, has {count} ends", run.left));
        }
    }
}

/// What came to the reader's caller: each event once. Checks on the way what it heard.
fn delivered(
    name: &str,
    heard: &[Heard],
    allowed: Allowed,
    counts: &mut BTreeMap<&'static str, usize>,
    problems: &mut Vec<String>,
) -> Vec<Seen> {
    let mut cursor: Option<(String, u64)> = None;
    let mut epochs: HashMap<&str, &str> = HashMap::new();
    let mut sequences: HashMap<(&str, &str), u64> = HashMap::new();
    let mut delivered = Vec::new();
    let mut count = |what| *counts.entry(what).or_default() += 1;
    for heard in heard {
        match heard {
            Heard::Event(event) => {
                count("events");
                if let Some((epoch, offset)) = &cursor
                    && (*epoch != event.epoch || *offset >= event.offset)
                {
                    problems.push(format!("{name}: at {epoch}-{offset} came {event:?}"));
                }
                cursor = Some((event.epoch.clone(), event.offset));
                let counted = sequences.get(&(event.epoch.as_str(), event.run.as_str()));
                if counted.is_some_and(|sequence| sequence + 1 != event.run_sequence) {
                    problems.push(format!("{name}: {counted:?} is followed by {event:?}"));
                }
                sequences.insert((&event.epoch, &event.run), event.run_sequence);
                match epochs.insert(&event.event_id, &event.epoch) {
                    None => delivered.push(event.clone()),
                    Some(epoch) if epoch == event.epoch => {
                        problems.push(format!("{name}: twice: {event:?}"));
                    }
                    // Replayed under another epoch.
                    Some(_) => {}
                }
            }
            Heard::Gap(reason, next) => {
                count("gaps");
                let same = cursor
                    .as_ref()
                    .is_none_or(|(epoch, _)| *epoch == next.epoch);
                if !allowed.gaps || (same == (*reason == epoch_changed())) {
                    problems.push(format!(
                        "{name}: at {cursor:?} a gap, {reason}, to {next:?}"
                    ));
                }
                cursor = Some((next.epoch.clone(), next.offset));
                sequences.clear();
            }
            Heard::CaughtUp => count("caught up"),
            Heard::Ended(_) => count("disconnections"),
            Heard::Refused(why) => problems.push(format!("{name}: refused: {why}")),
        }
    }
    delivered
}

impl Verdict {
    /// How many events were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// How many acknowledged events are gone.
    pub(crate) fn lost(&self) -> usize {
        self.lost
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!(
            "{} of {} events acknowledged in {} runs, {} lost; readers: {:?}; attempts that were made again: {:?}",
            self.acknowledged, self.events, self.runs, self.lost, self.heard, self.attempts
        );
        for problem in self.problems.iter().take(30) {
            let _never_fails = write!(text, "\n  {problem}");
        }
        if self.problems.len() > 30 {
            let _never_fails = write!(text, "\n  and {} more", self.problems.len() - 30);
        }
        f.write_str(&text)
    }
}
