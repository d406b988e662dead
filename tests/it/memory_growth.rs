//! Users come, start a run, and go, far longer than anything of them is remembered: memory does not grow.
//!
//! The workload runs in a process of its own, this binary again, so that what the system says of its memory is about
//! nothing else.

use std::{process::Command, sync::Arc, time::Duration};

use emitter::{
    clock::{Clock, Entropy},
    engine::{Engine, memory, memory::MemoryEngine},
    event::{Event, Kind, StreamKey},
    fanout::{self, Delivery, Filter, Hub, Start},
    sequencer::{self, Sequencer},
    telemetry::Metrics,
};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::support::{
    events::{hours, maintain_all, memory, of, sized, stream},
    seed,
};

/// Set in the process that runs the workload.
const CHILD: &str = "EMITTER_TEST_MEMORY_GROWTH";

/// How much of the clock's time passes from one user to the next. The first tenth of the users covers 83 hours: more
/// than records, runs (24 hours) and claims (48 hours) are remembered.
const STEP: Duration = Duration::from_secs(30);

/// How far a level may be from the one after the first tenth; memory may also be given back.
const TOLERANCE: f64 = 0.1;

#[test]
fn memory_does_not_grow_with_users_that_come_and_go_soak() {
    let child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "memory_growth::the_workload", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("this binary runs again");
    let (out, err) = (
        String::from_utf8_lossy(&child.stdout),
        String::from_utf8_lossy(&child.stderr),
    );
    println!("{out}\n{err}");
    assert!(child.status.success(), "{}", child.status);
    assert!(out.contains("level after 10 tenths"), "it did not run");
}

/// Does nothing unless it runs alone, for the test above.
#[test]
fn the_workload() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
        .block_on(users_come_and_go(seed::cases(100_000, 1_000_000)));
}

struct Service {
    engine: Arc<MemoryEngine>,
    sequencer: Arc<Sequencer>,
    hub: Arc<Hub>,
    clock: Clock,
    rendered: PrometheusHandle,
}

async fn users_come_and_go(users: u64) {
    let (engine, clock) = memory(memory::Config::default());
    let (metrics, rendered) = Metrics::new();
    let metrics = Arc::new(metrics);
    let service = Service {
        rendered,
        sequencer: Sequencer::new(
            engine.clone(),
            clock.clone(),
            Entropy::seeded(1),
            sequencer::Config::default(),
            metrics.clone(),
        ),
        hub: Hub::new(
            engine.clone(),
            fanout::Config::default(),
            clock.clone(),
            metrics,
        ),
        engine,
        clock,
    };
    let tenth = users / 10;
    assert!(STEP * tenth as u32 > hours(72));
    let mut first = None;
    for n in 0..users {
        service.visit(n).await;
        service.clock.advance(STEP);
        service.maintain().await;
        if (n + 1) % tenth == 0 {
            let level = service.level();
            println!("level after {} tenths: {level:?}", (n + 1) / tenth);
            level.check(first.get_or_insert_with(|| level.clone()));
        }
    }
    // And when nobody comes any more, nothing is left.
    for _ in 0..(hours(72).as_secs() / STEP.as_secs()) {
        service.clock.advance(STEP);
        service.maintain().await;
    }
    // But the watchdog's leases, which are kept for 8 days.
    service.clock.advance(hours(8 * 24));
    maintain_all(&*service.engine).await;
    let level = service.level();
    println!("level at the end: {level:?}");
    assert_eq!((level.bytes, level.streams, level.readers), (0, 0, 0));
}

impl Service {
    /// A user comes, perhaps looks, starts a run, perhaps ends it, and goes.
    async fn visit(&self, n: u64) {
        let user = stream(&format!("user-{n:07}"));
        let run = format!("run-{n:07}");
        let reader = match n % 10 {
            0 => {
                let subscribed = self.hub.subscribe(&user, Start::Oldest, Filter::default());
                Some(subscribed.await.expect("subscribed"))
            }
            _ => None,
        };
        let mut events = vec![
            event(&user, &format!("{n}-a"), &run, Kind::AgentStarted, 50),
            event(&user, &format!("{n}-b"), &run, Kind::ToolExecuting, 300),
        ];
        if n.is_multiple_of(2) {
            let completed = event(&user, &format!("{n}-c"), &run, Kind::AgentCompleted, 200);
            events.push(completed);
        }
        for event in events {
            let answers = self
                .sequencer
                .submit(user.clone(), vec![Arc::new(event)], None)
                .await;
            assert!(answers[0].is_ok(), "{answers:?}");
        }
        if let Some(mut reader) = reader {
            while !matches!(reader.next(1 << 16).await, Ok(Delivery::CaughtUp(_))) {}
        }
    }

    /// As the service does about once a second; here less often, so that time can pass.
    async fn maintain(&self) {
        self.sequencer.maintain();
        self.sequencer.sweep().await;
        self.hub.maintain();
        self.engine.maintain().await;
        // Histograms keep every sample until somebody asks.
        self.rendered.run_upkeep();
    }

    fn level(&self) -> Level {
        Level {
            bytes: self.engine.bytes(),
            streams: self.engine.streams(),
            readers: self.hub.users(),
            resident: resident(),
        }
    }
}

fn event(user: &StreamKey, id: &str, run: &str, kind: Kind, body: usize) -> Event {
    of(sized(user, id, Some(run), kind, body), "thread", "agent")
}

#[derive(Clone, Debug)]
struct Level {
    /// By the engine's own count.
    bytes: usize,
    streams: usize,
    readers: usize,
    /// By the system's count, in KiB.
    resident: usize,
}

impl Level {
    fn check(&self, first: &Level) {
        for (what, now, then) in [
            ("bytes", self.bytes, first.bytes),
            ("streams", self.streams, first.streams),
        ] {
            let ratio = now as f64 / then as f64;
            assert!(
                (ratio - 1.0).abs() <= TOLERANCE,
                "{what}: {now}, after the first tenth {then}"
            );
        }
        let (now, then) = (self.resident, first.resident);
        let most = then as f64 * (1.0 + TOLERANCE);
        assert!(
            now as f64 <= most,
            "resident: {now}, after the first tenth {then}"
        );
        assert_eq!(self.readers, 0);
    }
}

/// The memory of this process that is resident and not that of a file, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let mut lines = status.lines();
    let anonymous = lines.find_map(|line| line.strip_prefix("RssAnon:")?.strip_suffix(" kB"));
    let kib = anonymous.unwrap_or_else(|| panic!("no RssAnon in {status}"));
    kib.trim().parse().expect("a number")
}
