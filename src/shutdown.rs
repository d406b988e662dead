//! The end of the process, told to everyone who must act on it.

use std::time::Duration;

use tokio::sync::watch;

/// How far the shutdown has come. It only goes forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    #[default]
    Serving,
    /// New work is refused, work in flight finishes, readers are sent away.
    Draining,
    /// Listeners close.
    Stopped,
}

/// The end that orders the shutdown.
#[derive(Debug)]
pub struct Shutdown {
    phase: watch::Sender<Phase>,
    deadline: Duration,
}

/// The end that everyone else holds.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: watch::Receiver<Phase>,
    deadline: Duration,
}

impl Shutdown {
    /// A shutdown that, once begun, is to be over within `deadline`.
    pub fn new(deadline: Duration) -> Self {
        Self {
            phase: watch::Sender::default(),
            deadline,
        }
    }

    /// A handle for those who must act on it.
    pub fn drain(&self) -> Drain {
        Drain {
            phase: self.phase.subscribe(),
            deadline: self.deadline,
        }
    }

    /// Moves on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let forward = phase > *current;
            if forward {
                *current = phase;
            }
            forward
        });
    }
}

impl Drain {
    /// The phase right now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether new work is to be refused.
    pub fn is_draining(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    /// How long a shutdown may take once begun.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Waits until `phase` is reached. Also returns when the `Shutdown` is gone, which ends everything.
    pub async fn reached(&self, phase: Phase) {
        let mut watched = self.phase.clone();
        let _gone = watched.wait_for(|current| *current >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_go_forward() {
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let drain = shutdown.drain();
        assert!(!drain.is_draining());
        shutdown.advance(Phase::Stopped);
        shutdown.advance(Phase::Draining);
        assert_eq!(drain.phase(), Phase::Stopped);
        drain.reached(Phase::Draining).await;
    }
}
