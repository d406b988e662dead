//! A producer: singles and batches, honest retries, ids used again, calls given up.

use std::{sync::Arc, time::Duration};

use emitter::event::{Event, Kind};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use tokio::time::Instant;

use super::{
    World,
    model::{History, Told},
};
use crate::support::{
    events::{custom, sized},
    rig::Answer,
    schedule,
};

/// How many calls a producer makes, retries not counted.
const CALLS: usize = 25;

pub(super) struct Producer {
    world: Arc<World>,
    name: usize,
    rng: StdRng,
    made: usize,
    /// By user, events of earlier calls.
    earlier: [Vec<Arc<Event>>; 2],
    history: History,
}

impl Producer {
    pub(super) fn new(world: Arc<World>, name: usize, rng: StdRng) -> Self {
        Self {
            world,
            name,
            rng,
            made: 0,
            earlier: Default::default(),
            history: History::default(),
        }
    }

    pub(super) async fn run(mut self) -> History {
        for _ in 0..CALLS {
            let user = self.rng.random_range(0..2);
            let count = match self.rng.random_bool(0.5) {
                true => 1,
                false => self.rng.random_range(2..8),
            };
            let events: Vec<_> = (0..count).map(|_| self.event(user)).collect();
            self.earlier[user].extend(events.iter().cloned());
            match self.rng.random_range(0..10) {
                0 => self.give_up(user, events).await,
                _ => self.insist(user, events).await,
            }
            schedule::pass(&mut self.rng, 0..15).await;
        }
        self.history
    }

    /// A new event, an earlier one again, or another one under an earlier one's id.
    fn event(&mut self, user: usize) -> Arc<Event> {
        let earlier = self.earlier[user].choose(&mut self.rng).cloned();
        match (self.rng.random_range(0..10), earlier) {
            (0, Some(earlier)) => earlier,
            (1, Some(earlier)) => {
                let other = self.make(user, earlier.event_id.as_str().to_owned());
                Arc::new(other)
            }
            _ => {
                self.made += 1;
                let id = format!("p{}-{}", self.name, self.made);
                Arc::new(self.make(user, id))
            }
        }
    }

    fn make(&mut self, user: usize, id: String) -> Event {
        let stream = &self.world.users[user];
        // Two producers may share a run, two users never do.
        let run = format!("u{user}-r{}", self.rng.random_range(0..4));
        let body = self.rng.random_range(0..400);
        match self.rng.random_range(0..6) {
            0 => sized(stream, &id, None, custom("note"), body),
            1 => sized(stream, &id, Some(&run), Kind::AgentCompleted, body),
            2 => sized(stream, &id, Some(&run), Kind::AgentStarted, body),
            _ => sized(stream, &id, Some(&run), Kind::AgentThinking, body),
        }
    }

    async fn call(&mut self, user: usize, events: &[Arc<Event>]) -> Vec<Answer> {
        let deadline = match self.rng.random_range(0..8) {
            0 => Some(Instant::now() + Duration::from_millis(self.rng.random_range(0..40))),
            _ => None,
        };
        let stream = self.world.users[user].clone();
        let submitted = self
            .world
            .rig
            .sequencer
            .submit(stream, events.to_vec(), deadline);
        let answers = submitted.await;
        assert_eq!(answers.len(), events.len());
        for (event, answer) in events.iter().zip(&answers) {
            self.tell(user, event, Some(answer.clone()));
        }
        answers
    }

    /// Retries what failed until nothing is worth a retry, and then goes on.
    async fn insist(&mut self, user: usize, events: Vec<Arc<Event>>) {
        let mut left = events;
        for _ in 0..12 {
            let answers = self.call(user, &left).await;
            let worth = |answer: &Answer| matches!(answer, Err(r) if r.reason.retryable());
            let failed = answers.iter().position(worth).unwrap_or(left.len());
            for (event, answer) in left.iter().zip(&answers).take(failed) {
                let id = event.event_id.as_str();
                let mine = id.starts_with(&format!("p{}-", self.name));
                let new = !self.history.in_order.iter().any(|(_, known)| known == id);
                if answer.is_ok() && mine && new && !self.was_left(id) {
                    self.history.in_order.push((user, id.to_owned()));
                }
            }
            left.drain(..failed);
            if left.is_empty() {
                return;
            }
        }
        // It gives up: what becomes of these later says nothing of the order.
        for event in left {
            self.tell(user, &event, None);
        }
    }

    /// Goes away in the middle of the call.
    async fn give_up(&mut self, user: usize, events: Vec<Arc<Event>>) {
        let patience = Duration::from_millis(self.rng.random_range(0..10));
        for event in &events {
            self.tell(user, event, None);
        }
        // Answered or not, nobody listens.
        let _gone = tokio::time::timeout(patience, self.call(user, &events)).await;
    }

    fn was_left(&self, id: &str) -> bool {
        let left = |told: &Told| told.answer.is_none() && told.event.event_id.as_str() == id;
        self.history.told.iter().any(left)
    }

    fn tell(&mut self, user: usize, event: &Arc<Event>, answer: Option<Answer>) {
        self.history.told.push(Told {
            user,
            event: event.clone(),
            answer,
        });
    }
}
