//! What all share: the clock, the store, the nodes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use emitter::{
    clock::{Clock, Entropy, Timestamp},
    engine::{
        Engine,
        memory::{self, MemoryEngine},
    },
    event::{Epoch, StreamKey},
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use tokio::sync::watch;

use super::{HOUR, MINUTE, SECOND, history::Log, node::Node, producer::Told};
use crate::support::{
    epoch_engine::EpochEngine,
    events::{self, START, stream},
};

/// How many nodes there are.
pub(super) const NODES: usize = 3;

/// How finely time passes.
pub(super) const TICK: Duration = Duration::from_millis(250);

pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) memory: Arc<MemoryEngine>,
    pub(super) epochs: Arc<EpochEngine>,
    pub(super) users: Vec<StreamKey>,
    pub(super) logs: Vec<Arc<Log>>,
    nodes: Mutex<Vec<Option<Arc<Node>>>>,
    /// Whether producers and faults are over.
    pub(super) end: watch::Sender<bool>,
    /// When the wall clock jumped, by the time that passes, and by how much it was ahead from then on; milliseconds.
    jumps: Mutex<Vec<(i64, i64)>>,
    deaths: Mutex<usize>,
    missed: Mutex<Vec<Missed>>,
    seeds: Mutex<u64>,
}

/// Something of a user could not be stored through a node.
struct Missed {
    user: usize,
    node: Arc<Node>,
    /// By the time that passes.
    at: Duration,
}

/// How long after that the user's runs are not taken for silent, less than a tick or two.
const EXCUSED: Duration = Duration::from_secs(59);

impl World {
    pub(super) async fn new(rng: &mut StdRng) -> Arc<Self> {
        let bounds = memory::Config {
            retention_records: rng.random_range(20..400),
            retention_age: 100 * HOUR,
            run_memory: 100 * HOUR,
            ..memory::Config::default()
        };
        let clock = Clock::manual(START);
        let entropy = Entropy::seeded(rng.random());
        let memory = MemoryEngine::new(bounds, clock.clone(), &entropy, events::metrics());
        let users: Vec<_> = ["u0", "u1", "u2"].map(stream).into();
        let mut logs = Vec::new();
        for user in &users {
            // Behind the faults: this watch hears of everything.
            logs.push(Log::new(&*memory, user, clock.clone()).await);
        }
        let world = Arc::new(Self {
            epochs: EpochEngine::new(memory.clone()),
            memory,
            clock,
            users,
            logs,
            nodes: Mutex::new(vec![None; NODES]),
            end: watch::Sender::new(false),
            jumps: Mutex::new(vec![(0, 0)]),
            deaths: Mutex::default(),
            missed: Mutex::default(),
            seeds: Mutex::new(rng.random()),
        });
        for place in 0..NODES {
            world.start(place);
        }
        world
    }

    /// A node starts at `place`, if there is none.
    pub(super) fn start(&self, place: usize) {
        let mut seed = self.seeds.lock().unwrap();
        *seed = seed.wrapping_add(1);
        let mut nodes = self.nodes.lock().unwrap();
        if nodes[place].is_none() {
            nodes[place] = Some(Node::start(self, *seed));
        }
    }

    pub(super) fn node_at(&self, place: usize) -> Option<Arc<Node>> {
        self.nodes.lock().unwrap()[place].clone()
    }

    /// The node at `place` dies: whatever it does is not heard of any more.
    pub(super) fn kill(&self, place: usize) {
        let node = self.nodes.lock().unwrap()[place].take();
        if let Some(node) = node {
            node.die();
            *self.deaths.lock().unwrap() += 1;
        }
    }

    /// One of the nodes, when there is one.
    pub(super) async fn some_node(&self, rng: &mut StdRng) -> Arc<Node> {
        loop {
            let up: Vec<_> = self
                .nodes
                .lock()
                .unwrap()
                .iter()
                .flatten()
                .cloned()
                .collect();
            if let Some(node) = up.choose(rng) {
                return node.clone();
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// The wall clock jumps.
    pub(super) fn jump(&self, by: Duration, ahead: bool) {
        let by_millis = by.as_millis() as i64;
        let by_millis = match ahead {
            true => by_millis,
            false => -by_millis,
        };
        match ahead {
            true => self.clock.jump_ahead(by),
            false => self.clock.jump_back(by),
        }
        let mut jumps = self.jumps.lock().unwrap();
        let (_, before) = jumps[jumps.len() - 1];
        jumps.push((self.clock.steady().as_millis() as i64, before + by_millis));
    }

    /// A new epoch, though nothing is lost.
    pub(super) fn change_epoch(&self, epoch: u64) {
        self.epochs.lose(Epoch::new(epoch), self.clock.now());
    }

    /// A producer was told that something of a user could not be stored, by `node`.
    pub(super) fn could_not_store(&self, user: usize, node: &Arc<Node>) {
        let (node, at) = (node.clone(), self.clock.steady());
        self.missed.lock().unwrap().push(Missed { user, node, at });
    }

    /// How much of the time between `from` and `to` cannot be held against the runs of a user, as every node knows by
    /// then: something of that user could not be stored.
    pub(super) fn excused(&self, user: usize, from: Duration, to: Duration) -> Duration {
        let missed = self.missed.lock().unwrap();
        let known = missed.iter().filter(|missed| {
            let told = missed.node.has_told_by(missed.at);
            missed.user == user && told.is_some_and(|told| told <= to)
        });
        let (mut excused, mut until) = (Duration::ZERO, from);
        for missed in known {
            let begin = missed.at.clamp(until, to);
            until = self.before_jump(missed.at).clamp(begin, to);
            excused += until - begin;
        }
        excused
    }

    /// When an excuse of `at` ends, by the time that passes: a jump of the wall clock may cut it short.
    fn before_jump(&self, at: Duration) -> Duration {
        let around = (at.saturating_sub(2 * TICK), at + EXCUSED);
        let jumps = self.jumps.lock().unwrap();
        let jumps = jumps.iter().skip(1);
        let jumps = jumps.map(|(when, _)| Duration::from_millis(when.unsigned_abs()));
        let jump = jumps
            .filter(|when| (around.0..around.1).contains(when))
            .min();
        jump.unwrap_or(around.1)
    }

    /// Faults are over, and every node is up.
    pub(super) async fn settle(&self) {
        for place in 0..NODES {
            self.start(place);
            if let Some(node) = self.node_at(place) {
                node.heal();
            }
        }
        // What was stored late is stored by now.
        tokio::time::sleep(20 * SECOND).await;
    }

    pub(super) fn say_the_end(&self) {
        self.end.send_replace(true);
    }

    /// Lets so much time pass as it may take until the last run has ended, in greater steps. Only one of the nodes is
    /// left: no lease is stuck.
    pub(super) async fn wait_until_all_runs_are_over(&self) {
        for place in 1..NODES {
            self.kill(place);
        }
        let jumps: i64 = {
            let jumps = self.jumps.lock().unwrap();
            let sizes = jumps.windows(2).map(|pair| (pair[1].1 - pair[0].1).abs());
            sizes.sum()
        };
        // A jump may count twice at most, an outage for as long as it was and a minute more.
        let bound =
            self.clock.steady() * 3 + Duration::from_millis(jumps.unsigned_abs()) * 2 + 10 * MINUTE;
        let end = self.clock.steady() + bound;
        while self.logs.iter().any(|log| log.open_runs() > 0) {
            let open: Vec<_> = self.logs.iter().map(|log| log.open_runs()).collect();
            assert!(
                self.clock.steady() < end,
                "{open:?} runs never end, after {bound:?}"
            );
            self.clock.advance(5 * SECOND);
            tokio::time::sleep(5 * SECOND).await;
        }
    }

    /// When what was stored at `stored`, by the time that passes, was decided, as the wall clock said `at`.
    pub(super) fn decided(&self, at: Timestamp, stored: Duration) -> Duration {
        let since = at.as_millis() as i64 - START.as_millis() as i64;
        let mut until = stored.as_millis() as i64;
        for (from, ahead) in self.jumps.lock().unwrap().iter().rev() {
            if *from > until {
                continue;
            }
            let decided = since - ahead;
            if (*from..=until).contains(&decided) {
                return Duration::from_millis(decided as u64);
            }
            until = *from;
        }
        panic!("what was stored at {stored:?} cannot have been decided at {at}");
    }

    pub(super) fn summary(&self, told: &[Vec<Told>]) -> String {
        let records: usize = self.logs.iter().map(|log| log.records().len()).sum();
        let verdicts: usize = self.logs.iter().map(|log| log.verdicts()).sum();
        let (jumps, deaths) = (
            self.jumps.lock().unwrap().len() - 1,
            *self.deaths.lock().unwrap(),
        );
        let duplicates = told.iter().flatten().filter(|told| told.is_duplicate());
        let (calls, duplicates) = (told.iter().flatten().count(), duplicates.count());
        format!(
            "{records} records, {verdicts} verdicts, {calls} answers, {duplicates} duplicates, {jumps} jumps, \
             {deaths} deaths, {:?}",
            self.clock.steady()
        )
    }
}

/// Time passes, and the store tidies up.
pub(super) async fn pass_time(world: Arc<World>) {
    for tick in 0.. {
        // A step of the drawn schedule: the clock is paused, so nothing is waited for.
        tokio::time::sleep(TICK).await;
        world.clock.advance(TICK);
        if tick % 4 == 0 {
            world.memory.maintain().await;
        }
    }
}
