//! The reference: the rules of runs, written down as plainly as possible.

mod known;

use std::{collections::BTreeMap, sync::Arc};

use emitter::{
    clock::Timestamp,
    event::{
        ContentHash, Event, Kind, Offset, Record, RunSequence, RunState, Source, Step, StreamKey,
        ToolCallId, ToolName, Wait, WaitId,
    },
    sequencer::Rules,
};

use crate::support::rig::Answer;

pub(super) struct Model {
    rules: Rules,
    users: Vec<User>,
    /// When which user last asked to start which run and was refused.
    tried: BTreeMap<(StreamKey, String), Timestamp>,
}

struct User {
    key: StreamKey,
    /// Every run that was ever recorded; a later one of the same id replaces the earlier one.
    runs: BTreeMap<String, Run>,
    /// When and where each id was stored, and with which content.
    ids: BTreeMap<String, (Timestamp, Offset, [u8; 16])>,
    read_up_to: Offset,
}

#[derive(Debug)]
struct Run {
    events: u64,
    ended: Option<Timestamp>,
    last_sign: Timestamp,
    silence: std::time::Duration,
    waits: Vec<Open>,
    waiting: bool,
    owner: Source,
    calls: Vec<Call>,
    parent: Option<String>,
    input_tokens: u64,
}

/// An open wait: its id, its tool call's id and number, and when it expires.
#[derive(Clone, Debug)]
struct Open {
    id: Option<WaitId>,
    tool_call_id: Option<ToolCallId>,
    call: Option<RunSequence>,
    expires_at: Timestamp,
}

/// An open tool call.
#[derive(Clone, Debug)]
struct Call {
    sequence: RunSequence,
    id: ToolCallId,
    tool: ToolName,
    arguments: Option<ContentHash>,
}

const NOT_STARTED: &str = "RUN_NOT_STARTED";
const FOREIGN: &str = "RUN_OWNED_BY_OTHER_USER";

/// What is to become of an event.
#[derive(Debug, PartialEq)]
enum Expected {
    Stored(Step),
    Duplicate(Offset),
    Refused(&'static str),
    /// Another user's run, and refused for this reason too: which of the two is told depends on whether the call asked
    /// for the run's owner before.
    RefusedTwice(&'static str),
}

impl Model {
    pub(super) fn new(users: &[StreamKey], rules: Rules) -> Self {
        let user = |key: &StreamKey| User {
            key: key.clone(),
            runs: BTreeMap::new(),
            ids: BTreeMap::new(),
            read_up_to: Offset(0),
        };
        Self {
            rules,
            users: users.iter().map(user).collect(),
            tried: BTreeMap::new(),
        }
    }

    pub(super) fn read_up_to(&self, key: &StreamKey) -> Offset {
        self.user(key).read_up_to
    }

    fn user(&self, key: &StreamKey) -> &User {
        self.users.iter().find(|user| user.key == *key).unwrap()
    }

    fn user_mut(&mut self, key: &StreamKey) -> &mut User {
        self.users.iter_mut().find(|user| user.key == *key).unwrap()
    }

    /// One call: each event becomes what the rules say, and the records are exactly what was stored.
    pub(super) fn call(
        &mut self,
        key: &StreamKey,
        now: Timestamp,
        events: &[Event],
        answers: &[Answer],
        got: &[&str],
        records: &[Arc<Record>],
    ) {
        let mut records = records.iter();
        for ((event, answer), got) in events.iter().zip(answers).zip(got) {
            let expected = self.expect(key, now, event);
            let context = format!("{now} {event:?}\n{answer:?}\n{:#?}", self.runs_of(event));
            if *got != "stored" && matches!(event.step, Step::Start { .. }) {
                let run = event.run_id.as_ref().unwrap().as_str().to_owned();
                self.tried.insert((key.clone(), run), now);
            }
            match expected {
                Expected::Refused(NOT_STARTED | "PARENT_NOT_OPEN" | "LIMIT_EXCEEDED")
                | Expected::Stored(Step::Start { .. })
                    if *got == FOREIGN && self.just_tried(key, now, event) => {}
                Expected::Refused(reason) => assert_eq!(*got, reason, "{context}"),
                Expected::RefusedTwice(reason) => {
                    assert!([reason, FOREIGN].contains(got), "{context}");
                }
                Expected::Duplicate(offset) => {
                    assert_eq!(*got, "duplicate", "{context}");
                    assert_eq!(answer.as_ref().unwrap().position.offset, offset);
                }
                Expected::Stored(step) => {
                    assert_eq!(*got, "stored", "{context}");
                    if step == Step::End {
                        self.cancelled(key, now, event, &mut records);
                    }
                    let record = records.next().unwrap_or_else(|| panic!("{context}"));
                    assert_eq!(record.draft.event.event_id, event.event_id, "{context}");
                    assert_eq!(record.draft.step, step, "{context}");
                    self.take_in(key, now, record);
                }
            }
        }
        let more = records.next();
        assert!(more.is_none(), "{more:?}");
    }

    /// Whether another user was refused to start the run within the last minute. It may have put a claim on its id
    /// before that was decided, which holds for so long.
    fn just_tried(&self, key: &StreamKey, now: Timestamp, event: &Event) -> bool {
        let run = event.run_id.as_ref().unwrap().as_str();
        let minute = std::time::Duration::from_secs(60);
        self.tried
            .iter()
            .any(|((user, tried), at)| user != key && tried == run && *at + minute > now)
    }

    /// The watchdog looked: whatever it ended was silent for too long, or went with its parent, and nothing that was
    /// silent for too long is left.
    pub(super) fn swept(&mut self, key: &StreamKey, now: Timestamp, records: &[Arc<Record>]) {
        let mut records = records.iter();
        while let Some(record) = records.as_slice().first() {
            let user = self.user(key);
            let own_id = record.draft.event.run_id.as_ref().unwrap().as_str();
            let mut verdict = record;
            // What goes with its parent stands before the verdict on the parent.
            for later in records.as_slice() {
                verdict = later;
                if later.draft.event.kind == Kind::AgentFailed {
                    break;
                }
            }
            let run = verdict.draft.event.run_id.as_ref().unwrap().as_str();
            assert!(verdict.draft.event.event_id.is_own(), "{verdict:?}");
            assert_eq!(verdict.draft.event.kind, Kind::AgentFailed, "{verdict:?}");
            let deadline = user.deadline(run);
            assert!(deadline <= now, "{own_id}: {deadline} is after {now}");
            let event = verdict.draft.event.clone();
            self.cancelled(key, now, &event, &mut records);
            let verdict = records.next().unwrap();
            self.take_in(key, now, verdict);
        }
        for (id, run) in &self.user(key).runs {
            if run.ended.is_none() {
                let deadline = self.user(key).deadline(id);
                assert!(deadline > now, "{id} was to end at {deadline}: {run:#?}");
            }
        }
    }

    /// `event` ends its run: first come the ends of all runs below it, each after those below itself.
    fn cancelled<'a>(
        &mut self,
        key: &StreamKey,
        now: Timestamp,
        event: &Event,
        records: &mut impl Iterator<Item = &'a Arc<Record>>,
    ) {
        let run = event.run_id.as_ref().unwrap().as_str();
        let mut below = self.user(key).below(run);
        while !below.is_empty() {
            let record = records.next().expect("a cancelled sub-agent");
            let event = &record.draft.event;
            let ended = event.run_id.as_ref().unwrap().as_str();
            assert!(event.event_id.is_own(), "{record:?}");
            assert_eq!(event.kind, Kind::AgentCancelled, "{record:?}");
            assert!(below.iter().any(|run| run == ended), "{ended} {below:?}");
            assert_eq!(self.user(key).below(ended), Vec::<String>::new());
            below.retain(|run| run != ended);
            self.take_in(key, now, record);
        }
    }

    fn take_in(&mut self, key: &StreamKey, now: Timestamp, record: &Record) {
        let user = self.user_mut(key);
        let event = &record.draft.event;
        let id = event.run_id.as_ref().unwrap().as_str();
        user.read_up_to = record.position.offset;
        let at = (now, record.position.offset, event.content.0);
        user.ids.insert(event.event_id.as_str().to_owned(), at);
        if let Step::Start { silence_timeout } = record.draft.step {
            let parent = event.parent_run_id.as_ref();
            let run = Run {
                events: 0,
                ended: None,
                last_sign: now,
                silence: silence_timeout.unwrap(),
                waits: Vec::new(),
                waiting: false,
                owner: event.source.clone(),
                calls: Vec::new(),
                parent: parent.map(|parent| parent.as_str().to_owned()),
                input_tokens: 0,
            };
            user.runs.insert(id.to_owned(), run);
        }
        let run = user.runs.get_mut(id).unwrap();
        assert_eq!(run.ended, None, "after its end: {record:?}");
        run.events += 1;
        assert_eq!(record.draft.run_sequence.0, run.events, "{record:?}");
        let usage = event.usage.as_ref();
        run.input_tokens += usage.map_or(0, |usage| usage.tokens.input);
        let begins = run.events == 1;
        run.waits.retain(|wait| wait.expires_at > now);
        let mut goes_on = matches!(event.kind, Kind::AgentThinking);
        if !event.event_id.is_own() {
            run.last_sign = now;
            run.owner = event.source.clone();
        }
        match &record.draft.step {
            Step::ToolBegins {
                id,
                name,
                arguments,
                call,
            } if *call == Some(record.draft.run_sequence) => {
                goes_on = true;
                run.calls.push(Call {
                    sequence: record.draft.run_sequence,
                    id: id.clone(),
                    tool: name.clone(),
                    arguments: *arguments,
                });
            }
            Step::ToolEnds { id, call, .. } => {
                run.calls.retain(|open| Some(open.sequence) != *call);
                run.waits.retain(|wait| match wait.call {
                    Some(_) => wait.call != *call,
                    None => wait.tool_call_id.is_none() || wait.tool_call_id != *id,
                });
                goes_on = run.calls.is_empty();
            }
            Step::Wait(wait) => {
                run.waits
                    .retain(|open| open.id.is_none() || open.id != wait.id);
                run.waits.push(Open {
                    id: wait.id.clone(),
                    tool_call_id: wait.tool_call_id.clone(),
                    call: wait.call,
                    expires_at: now + wait.max_wait.unwrap(),
                });
            }
            Step::Resume { id } => {
                run.waits.retain(|open| id.is_some() && open.id != *id);
            }
            Step::End => {
                run.ended = Some(now);
                run.waits.clear();
                let summary = record.draft.summary.as_ref().expect("a summary");
                let open: Vec<_> = summary
                    .open_tool_calls
                    .iter()
                    .map(|call| call.call_sequence)
                    .collect();
                let calls = run.calls.iter().map(|call| call.sequence);
                assert_eq!(open, calls.collect::<Vec<_>>());
                let input = summary.usage.map_or(0, |usage| usage.tokens.input);
                assert_eq!(input, run.input_tokens, "{record:?}");
                let (sign, parent) = (run.last_sign, run.parent.clone());
                if let Some(parent) = parent.and_then(|parent| user.runs.get_mut(&parent)) {
                    parent.last_sign = parent.last_sign.max(sign);
                }
            }
            _ => {}
        }
        let Some(run) = user.runs.get_mut(id) else {
            panic!("{id} is gone");
        };
        if goes_on {
            run.waits.retain(|wait| wait.id.is_some());
        }
        let state = match &event.kind {
            Kind::AgentCompleted => Some(RunState::Completed),
            Kind::AgentFailed => Some(RunState::Failed),
            Kind::AgentCancelled => Some(RunState::Cancelled),
            _ => match (run.waiting, run.waits.is_empty()) {
                (false, false) => Some(RunState::Waiting),
                (true, true) => Some(RunState::Running),
                _ => begins.then_some(RunState::Running),
            },
        };
        run.waiting = !run.waits.is_empty();
        assert_eq!(record.draft.state, state, "{record:?}");
    }

    fn runs_of(&self, event: &Event) -> Vec<(&StreamKey, Option<&Run>)> {
        let run = event.run_id.as_ref().unwrap().as_str();
        let users = self.users.iter();
        users.map(|user| (&user.key, user.runs.get(run))).collect()
    }

    fn known(&self, user: &User, run: &str, now: Timestamp) -> bool {
        let over = |ended: Timestamp| ended + self.rules.run_memory <= now;
        let run = user.runs.get(run);
        run.is_some_and(|run| !run.ended.is_some_and(over))
    }

    fn expect(&self, key: &StreamKey, now: Timestamp, event: &Event) -> Expected {
        let user = self.user(key);
        if let Some((at, offset, content)) = user.ids.get(event.event_id.as_str())
            && *at + self.rules.dedupe_window > now
        {
            return match *content == event.content.0 {
                true => Expected::Duplicate(*offset),
                false => Expected::Refused("EVENT_ID_REUSED"),
            };
        }
        let id = event.run_id.as_ref().unwrap().as_str();
        let is_foreign = |other: &User| other.key != *key && self.known(other, id, now);
        let known = self.known(user, id, now);
        if self.users.iter().any(is_foreign) {
            return match (&event.step, self.expect_new(user, now, event)) {
                (Step::Start { .. }, Expected::Refused(reason)) => Expected::RefusedTwice(reason),
                _ => Expected::Refused(FOREIGN),
            };
        }
        match known {
            true => self.expect_of(&user.runs[id], now, event),
            false => self.expect_new(user, now, event),
        }
    }

    fn expect_of(&self, run: &Run, now: Timestamp, event: &Event) -> Expected {
        let refused = Expected::Refused;
        if event.source.term < run.owner.term {
            return refused("SOURCE_FENCED");
        }
        if event.source.term == run.owner.term && event.source.producer_id != run.owner.producer_id
        {
            return refused("COMPETING_SOURCE");
        }
        if run.ended.is_some() {
            return refused("RUN_ENDED");
        }
        match &event.step {
            Step::Start { .. } => refused("RUN_ALREADY_STARTED"),
            Step::ToolBegins {
                id,
                name,
                arguments,
                ..
            } => {
                let begun = |call| {
                    Expected::Stored(Step::ToolBegins {
                        id: id.clone(),
                        name: name.clone(),
                        arguments: *arguments,
                        call: Some(call),
                    })
                };
                match run.repeated(id, name, *arguments) {
                    Some(call) => begun(call.sequence),
                    None if run.calls.len() < self.rules.open_tool_calls => {
                        begun(RunSequence(run.events + 1))
                    }
                    None => refused("LIMIT_EXCEEDED"),
                }
            }
            Step::ToolEnds { id, name, call } => {
                match run.call(id.as_ref(), name.as_ref(), *call) {
                    Some(call) => Expected::Stored(Step::ToolEnds {
                        id: Some(call.id.clone()),
                        name: Some(call.tool.clone()),
                        call: Some(call.sequence),
                    }),
                    None => refused("TOOL_CALL_UNKNOWN"),
                }
            }
            Step::ToolAdvances { id, call } => {
                let open = run.call(id.as_ref(), None, *call);
                Expected::Stored(Step::ToolAdvances {
                    id: open.map(|call| call.id.clone()).or_else(|| id.clone()),
                    call: open.map(|call| call.sequence),
                })
            }
            Step::Wait(wait) => {
                let beside = run.waits.iter().filter(|open| {
                    open.expires_at > now && (open.id.is_none() || open.id != wait.id)
                });
                if beside.count() >= emitter::run::OPEN_WAITS {
                    return refused("LIMIT_EXCEEDED");
                }
                let id = wait.tool_call_id.as_ref();
                let call = id.and_then(|id| run.call(Some(id), None, None));
                Expected::Stored(Step::Wait(Box::new(Wait {
                    max_wait: Some(wait.max_wait.unwrap_or(self.rules.defaults.max_wait)),
                    call: call.map(|call| call.sequence),
                    ..Wait::clone(wait)
                })))
            }
            step => Expected::Stored(step.clone()),
        }
    }

    fn expect_new(&self, user: &User, now: Timestamp, event: &Event) -> Expected {
        let Step::Start { silence_timeout } = event.step else {
            return Expected::Refused(NOT_STARTED);
        };
        let open = |run: &str| self.known(user, run, now) && user.runs[run].ended.is_none();
        let parent = event.parent_run_id.as_ref().map(|parent| parent.as_str());
        if parent.is_some_and(|parent| !open(parent)) {
            return Expected::Refused("PARENT_NOT_OPEN");
        }
        let all_open = user.runs.values().filter(|run| run.ended.is_none()).count();
        let full = all_open >= self.rules.open_runs;
        let family = parent.is_some_and(|parent| {
            let above = user.above(parent);
            let top = above.last().map_or(parent, String::as_str);
            above.len() >= self.rules.depth || user.below(top).len() >= self.rules.descendants
        });
        if full || family {
            return Expected::Refused("LIMIT_EXCEEDED");
        }
        Expected::Stored(Step::Start {
            silence_timeout: Some(silence_timeout.unwrap_or(self.rules.defaults.silence_timeout)),
        })
    }
}
