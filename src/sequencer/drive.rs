//! From a group of jobs to one append, and back to their answers.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Sequencer,
    decide::{Decision, Group, Verdict},
    lane::{Answers, Driving, Job},
};
use crate::{
    clock::{Spans, Timestamp},
    engine::{AppendError, Commit, EngineError, ReadLimit, StreamState},
    event::{Record, RunId, StreamKey},
    reason::{Reason, Refusal},
};

/// How often an append is decided again because other writers came first.
const ATTEMPTS: u32 = 8;

/// The first wait before deciding again; it doubles from there, and is jittered.
const BACKOFF: Duration = Duration::from_millis(2);

/// How long a job must have waited for its deadline to be missed by the service, not by the caller.
const CHANCE: Duration = Duration::from_secs(1);

/// How many groups one driver handles before it lets others run.
const GROUPS_PER_TURN: usize = 16;

/// What a group came to, before the append.
#[derive(Default)]
struct Decided {
    /// Each event of each job.
    jobs: Vec<Vec<Result<Decision, Refusal>>>,
    /// Runs that the watchdog looks at again, and when.
    alive: Vec<(RunId, Timestamp)>,
    /// How many runs were silent for too long.
    stalled: u64,
}

impl Decided {
    fn has_duplicates(&self) -> bool {
        let mut decisions = self.jobs.iter().flatten();
        decisions.any(|decision| matches!(decision, Ok(Decision::Duplicate(_))))
    }
}

impl Sequencer {
    /// Drives a lane until nothing waits in it.
    pub(super) async fn drive(self: Arc<Self>, mut driving: Driving) {
        for turn in 1.. {
            let jobs = driving.next_group(self.clock.now());
            if jobs.is_empty() {
                return;
            }
            self.settle(&mut driving, jobs).await;
            if turn % GROUPS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Decides and stores one group, and answers it.
    async fn settle(&self, driving: &mut Driving, mut jobs: Vec<Job>) {
        let started = Instant::now();
        let stream = driving.lane.stream.clone();
        for attempt in 0..ATTEMPTS {
            self.refuse_expired(&stream, &mut jobs, attempt > 0);
            if jobs.is_empty() {
                return;
            }
            let (mut state, current) = match driving.state.take() {
                Some(state) => (state, false),
                None => match self.engine.load(&stream).await {
                    Ok(state) => (state, true),
                    Err(error) => {
                        self.note_not_stored(&stream);
                        return refuse_all(jobs, &unavailable(&error));
                    }
                },
            };
            match self.attempt(&stream, &mut state, current, &jobs).await {
                Ok((decided, records)) => {
                    driving.state = Some(state);
                    self.metrics.append_seconds.record(started.elapsed());
                    return self.answer(jobs, decided, &Outcome::Stored(records));
                }
                Err(Failure::Conflict(records)) => {
                    for record in records {
                        state.apply(&record);
                    }
                    driving.state = Some(state);
                }
                Err(Failure::Reload) => {}
                Err(Failure::Failed(decided, refusal)) => {
                    // The append did not say whether what was decided on is still so.
                    let stands = self.stands(&stream, &state, current, &decided).await;
                    let stands = stands.unwrap_or(false);
                    // Only an unknown outcome leaves the state in doubt.
                    if refusal.reason != Reason::OutcomeUnknown {
                        driving.state = Some(state);
                    }
                    self.note_not_stored(&stream);
                    let outcome = Outcome::Failed { refusal, stands };
                    return self.answer(jobs, decided, &outcome);
                }
                Err(Failure::NotDecided(refusal)) => {
                    driving.state = Some(state);
                    self.note_not_stored(&stream);
                    return refuse_all(jobs, &refusal);
                }
            }
            self.metrics.conflicts.increment(1);
            if attempt + 1 < ATTEMPTS {
                let jitter = 0.5 + self.entropy.fraction();
                tokio::time::sleep(BACKOFF.mul_f64(jitter * f64::from(1 << attempt))).await;
            }
        }
        let refusal = Refusal::new(Reason::Contended, "other writers came first too often");
        let has_events = jobs.iter().any(|job| !job.events.is_empty());
        if has_events {
            self.note_not_stored(&stream);
        }
        refuse_all(jobs, &refusal);
    }

    /// Takes out the jobs whose callers have stopped waiting: they are not stored. That is the service's doing only where
    /// it had a chance, which an attempt that `has_failed` was: a deadline that was past from the start excuses nobody.
    fn refuse_expired(&self, stream: &StreamKey, jobs: &mut Vec<Job>, has_failed: bool) {
        if jobs.iter().all(|job| job.deadline.is_none()) {
            return;
        }
        let now = Instant::now();
        let is_expired = |job: &mut Job| job.deadline.is_some_and(|deadline| deadline <= now);
        let expired: Vec<_> = jobs.extract_if(.., is_expired).collect();
        if expired
            .iter()
            .any(|job| has_failed || job.entered_at + CHANCE <= now)
        {
            self.note_not_stored(stream);
        }
        let refusal = Refusal::new(Reason::DeadlineExceeded, "the deadline passed; not stored");
        refuse_all(expired, &refusal);
    }

    /// Notes that something of a user could not be stored: silence may have another reason now. For others the engine may
    /// store all the same.
    pub(super) fn note_not_stored(&self, stream: &StreamKey) {
        let now = self.clock.now();
        self.outages().user_failed(stream, now);
    }

    /// One attempt to decide the group and store what is to be stored. `current`: `state` was loaded just now. An append
    /// finds out whether it still is; where nothing is to be stored, the engine is asked.
    async fn attempt(
        &self,
        stream: &StreamKey,
        state: &mut StreamState,
        current: bool,
        jobs: &[Job],
    ) -> Result<(Decided, Vec<Arc<Record>>), Failure> {
        let now = self.clock.now();
        let rules = &self.config.rules;
        let ids = self.config.dedupe_ids_per_user;
        let age_now = self.clock.age_now();
        state.forget(age_now, rules.run_memory, rules.dedupe_window, ids);
        let mut foreign = HashSet::new();
        let (decided, drafts) = loop {
            let mut group = Group::new(stream, state, rules, now, &foreign).with_age(age_now);
            let decided = self.decide_all(stream, &mut group, jobs);
            let (due, unknown) = (group.claims().to_vec(), group.unknown().clone());
            let drafts = group.into_drafts();
            let mut lost = self
                .claim_all(stream, &due)
                .await
                .map_err(|error| Failure::NotDecided(unavailable(&error)))?;
            lost.retain(|run_id| !self.goes_on_unclaimed(stream, state, run_id));
            for run_id in unknown {
                if self.is_of_another_user(stream, &run_id).await {
                    lost.push(run_id);
                }
            }
            if lost.is_empty() {
                break (decided, drafts);
            }
            foreign.extend(lost);
        };
        if drafts.is_empty() {
            if !self.stands(stream, state, current, &decided).await? {
                return Err(Failure::Reload);
            }
            self.look_again(stream, state, &decided).await;
            return Ok((decided, Vec::new()));
        }
        self.metrics.append_events.record(drafts.len() as f64);
        let commit = Commit { drafts };
        match self.engine.append(stream, state, commit).await {
            Ok(appended) => {
                self.metrics
                    .emitted
                    .increment(appended.records.len() as u64);
                for record in &appended.records {
                    state.apply(record);
                    let recovered = record.draft.recovered.is_some();
                    self.metrics.events_recovered.increment(recovered.into());
                    if let Some(violation) = record.draft.violation {
                        self.metrics.violation(violation);
                    }
                }
                self.metrics.runs_stalled.increment(decided.stalled);
                self.look_again(stream, state, &decided).await;
                Ok((decided, appended.records))
            }
            Err(AppendError::Conflict(records)) => Err(Failure::Conflict(records)),
            Err(AppendError::Reload) => Err(Failure::Reload),
            Err(error) => Err(Failure::Failed(decided, refusal_of(&error))),
        }
    }

    /// Whether what was decided on `state` is so, and what it says of earlier events may be told. `current`: it was
    /// loaded just now.
    async fn stands(
        &self,
        stream: &StreamKey,
        state: &StreamState,
        current: bool,
        decided: &Decided,
    ) -> Result<bool, Failure> {
        if !current && !self.is_current(stream, state).await? {
            return Ok(false);
        }
        // The first receipt may have been held back because the event was not safe.
        if decided.has_duplicates()
            && let Err(error) = self.engine.confirm(stream, state.head).await
        {
            tracing::debug!(?stream, %error, "what is stored was not confirmed");
            return Err(Failure::NotDecided(unknown(
                "the event is stored, but it is not known how safely",
            )));
        }
        Ok(true)
    }

    /// Whether nothing has come after `state`.
    async fn is_current(&self, stream: &StreamKey, state: &StreamState) -> Result<bool, Failure> {
        let limit = ReadLimit {
            records: 1,
            bytes: 1,
        };
        let head = state.head;
        let page = self.engine.read(stream, head.offset, limit).await;
        let page = page.map_err(|error| Failure::NotDecided(unavailable(&error)))?;
        let same = page.head.epoch == head.epoch && page.trimmed <= head.offset;
        Ok(same && page.records.is_empty())
    }

    /// Decides on the events of `jobs`, and on the runs that the watchdog asks for.
    fn decide_all(&self, stream: &StreamKey, group: &mut Group<'_>, jobs: &[Job]) -> Decided {
        let mut decided = Decided::default();
        for job in jobs {
            let events = job.events.iter().map(|event| group.decide(event));
            decided.jobs.push(events.collect());
            if job.judged.is_empty() {
                continue;
            }
            let uncounted = self.uncounted(stream);
            for run_id in &job.judged {
                match group.judge(run_id, &uncounted) {
                    Verdict::Over => {}
                    Verdict::Alive(until) => decided.alive.push((run_id.clone(), until)),
                    Verdict::Stalled => decided.stalled += 1,
                }
            }
        }
        decided
    }

    /// The time that is not held against a user's silent runs.
    fn uncounted(&self, stream: &StreamKey) -> Vec<Spans> {
        let mut uncounted = self.outages.lock().of(stream, self.clock.now());
        uncounted.push(self.clock.skipped());
        uncounted
    }

    /// Tells the engine when the watchdog looks again at runs that are not silent for too long.
    async fn look_again(&self, stream: &StreamKey, state: &StreamState, decided: &Decided) {
        if decided.alive.is_empty() {
            return;
        }
        let head = state.head;
        if let Err(error) = self.engine.look_again(stream, head, &decided.alive).await {
            // They stay due, and are looked at in a second.
            tracing::debug!(?stream, %error, "deadlines were not moved");
        }
    }

    /// Answers what was decided on, once it is known what became of it.
    fn answer(&self, jobs: Vec<Job>, decided: Decided, outcome: &Outcome) {
        for (job, decisions) in jobs.into_iter().zip(decided.jobs) {
            self.note_refused_sources(&job, &decisions);
            // Who waits for the watchdog's look learns of a failure by getting no answer.
            if matches!(outcome, Outcome::Failed { .. }) && !job.judged.is_empty() {
                continue;
            }
            let answers = match outcome {
                Outcome::Stored(records) => stored(decisions, records),
                Outcome::Failed { refusal, stands } => failed(decisions, refusal, *stands),
            };
            let _gone = job.answer.send(answers);
        }
    }

    /// Remembers which sources were refused because another owned the run.
    fn note_refused_sources(&self, job: &Job, decisions: &[Result<Decision, Refusal>]) {
        for (event, decision) in job.events.iter().zip(decisions) {
            if let Err(refusal) = decision
                && matches!(
                    refusal.reason,
                    Reason::CompetingSource | Reason::SourceFenced
                )
            {
                self.refused_sources.note(event, refusal, self.clock.now());
            }
        }
    }
}

/// Why an attempt stored nothing that is known of.
enum Failure {
    /// These records came first: take them in and decide again.
    Conflict(Vec<Arc<Record>>),
    /// Load and decide again.
    Reload,
    /// The append failed.
    Failed(Decided, Refusal),
    /// It did not come to an append.
    NotDecided(Refusal),
}

/// What became of a group's append.
enum Outcome {
    /// One record for each draft.
    Stored(Vec<Arc<Record>>),
    /// None of the drafts is known to be stored.
    Failed {
        refusal: Refusal,
        /// The other decisions were made on what is so, not on what an old state says.
        stands: bool,
    },
}

fn stored(decisions: Vec<Result<Decision, Refusal>>, records: &[Arc<Record>]) -> Answers {
    let receipt = |index: usize, duplicate: bool| match records.get(index) {
        Some(record) => Ok(record.receipt(duplicate)),
        None => Err(unknown("the engine answered with too few records")),
    };
    decisions
        .into_iter()
        .map(|decision| match decision? {
            Decision::Store(index) => receipt(index, false),
            Decision::SameAs(index) => receipt(index, true),
            Decision::Duplicate(receipt) => Ok(receipt),
        })
        .collect()
}

/// Nothing of the group was stored, or nobody knows. The first event of a call that should have been stored gets the
/// reason; later ones of the same call were not attempted, so that a retry cannot reorder them. Where what was decided on
/// may have been old, no other decision `stands` either.
fn failed(decisions: Vec<Result<Decision, Refusal>>, refusal: &Refusal, stands: bool) -> Answers {
    let mut preceded = false;
    let mut fail = || {
        if preceded && refusal.reason != Reason::OutcomeUnknown {
            return Err(Refusal::new(
                Reason::PrecedingFailed,
                format!(
                    "an earlier event of this user failed: {}",
                    refusal.reason.name()
                ),
            ));
        }
        preceded = true;
        Err(refusal.clone())
    };
    decisions
        .into_iter()
        .map(|decision| match decision {
            Ok(Decision::Duplicate(receipt)) if stands => Ok(receipt),
            // It may be stored, however this went.
            Ok(Decision::Duplicate(_)) => {
                Err(unknown("it is not known whether the event is stored"))
            }
            Err(refused) if stands => Err(refused),
            _ => fail(),
        })
        .collect()
}

/// Refuses whole jobs before anything of them was attempted.
fn refuse_all(jobs: Vec<Job>, refusal: &Refusal) {
    for job in jobs.into_iter().filter(|job| job.judged.is_empty()) {
        let decisions = job.events.iter().map(|_| Ok(Decision::Store(0))).collect();
        let _gone = job.answer.send(failed(decisions, refusal, true));
    }
}

pub(super) fn unavailable(error: &EngineError) -> Refusal {
    match error {
        EngineError::Full => Refusal::new(Reason::StreamFull, "the store is full"),
        EngineError::Unavailable(_) => Refusal::new(
            Reason::EngineUnavailable,
            "the store cannot be reached, or takes nothing at present",
        ),
    }
}

fn refusal_of(error: &AppendError) -> Refusal {
    match error {
        AppendError::Full => Refusal::new(Reason::StreamFull, "the store is full"),
        AppendError::Unknown(_) => unknown("the engine did not say whether it stored the event"),
        AppendError::Conflict(_) | AppendError::Reload | AppendError::Unavailable(_) => {
            Refusal::new(
                Reason::EngineUnavailable,
                "the store cannot be reached, or takes nothing at present",
            )
        }
    }
}

/// The refusal for an event that may or may not be stored.
pub(super) fn unknown(message: &str) -> Refusal {
    Refusal::new(Reason::OutcomeUnknown, message)
}
