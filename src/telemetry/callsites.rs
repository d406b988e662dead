//! Bounds what every place in the code logs, also in libraries.

use std::collections::HashMap;

use parking_lot::Mutex;
use tracing::{Event, Level, Subscriber, callsite::Identifier};
use tracing_subscriber::layer::{Context, Layer};

use super::LogLimit;

/// A layer that leaves out lines of `INFO` and above beyond 10 within 10 seconds of one place in the code. Peers can cause
/// lines in libraries, such as the warning of an HTTP/2 library for each PING acknowledgement that it did not ask for.
/// `DEBUG` and `TRACE` are not limited: an operator who sets them wants every line.
#[derive(Debug, Default)]
pub struct CallsiteLimits {
    /// One for each place that has logged: as many as the program has at most.
    limits: Mutex<HashMap<Identifier, LogLimit>>,
}

impl<S: Subscriber> Layer<S> for CallsiteLimits {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true;
        }
        let admitted = {
            let mut limits = self.limits.lock();
            limits.entry(metadata.callsite()).or_default().admit()
        };
        if let Some(left_out @ 1..) = admitted {
            // The lock is free: this comes here again, as a line of another place.
            let (place, line) = (metadata.target(), metadata.line());
            tracing::info!(left_out, place, line, "log lines were left out");
        }
        admitted.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use tracing_subscriber::{fmt, layer::SubscriberExt};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_place_logs_ten_lines_and_debug_is_not_limited() {
        let written = Written::default();
        let writer = written.clone();
        let lines = fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false);
        let subscriber = tracing_subscriber::registry()
            .with(CallsiteLimits::default())
            .with(lines);
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..100 {
                tracing::warn!(n, "flood");
                tracing::info!("other");
                tracing::debug!("detail");
            }
        });
        let text = String::from_utf8(written.0.lock().clone()).unwrap();
        let count = |word: &str| text.matches(word).count();
        assert_eq!(
            (count("flood"), count("other"), count("detail")),
            (10, 10, 100),
            "{text}"
        );
    }
}
