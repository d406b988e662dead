//! File descriptors: how many connections there is room for, beside what the service itself opens.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many descriptors the process may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors(usize);

/// The most connections to the admin listener: probes and scrapes.
pub const ADMIN_CONNECTIONS: usize = 64;

/// What is kept for the listeners, the runtime, the log, and connections that are closed as soon as they are accepted.
const PROCESS: usize = 64;

impl Descriptors {
    /// Raises the soft limit of this process to its hard limit.
    pub fn raise() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        let limit = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => maximum,
            Err(error) => {
                tracing::warn!(%error, ?current, ?maximum, "cannot raise the limit of open files");
                current
            }
        };
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        Self(limit.unwrap_or(usize::MAX))
    }

    /// How many of `wanted` connections there is room for, where the engine needs `engine` descriptors. Logged.
    pub fn connections(self, wanted: usize, engine: usize) -> usize {
        let (limit, connections) = (self.0, self.room(wanted, engine));
        let reserve = limit - self.room(usize::MAX, engine);
        if connections < wanted {
            tracing::warn!(
                limit,
                reserve,
                connections,
                wanted,
                "limits.connections is lowered to what the limit of open files leaves: raise the hard limit \
                 (`ulimit -Hn`, LimitNOFILE of systemd)"
            );
        } else {
            tracing::info!(limit, reserve, connections, "file descriptors");
        }
        connections
    }

    fn room(self, wanted: usize, engine: usize) -> usize {
        // Where the limit is tiny, half of it is for connections.
        let reserve = (ADMIN_CONNECTIONS + PROCESS + engine).min(self.0 / 2);
        wanted.min(self.0 - reserve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_the_reserve() {
        for (limit, wanted, engine, want) in [
            (1024, 100_000, 0, 896),
            (1024, 100_000, 256, 640),
            (1024, 500, 256, 500),
            (100, 100_000, 256, 50),
            (usize::MAX, 100_000, 256, 100_000),
        ] {
            let room = Descriptors(limit).room(wanted, engine);
            assert_eq!(room, want, "{limit} {wanted} {engine}");
        }
    }
}
