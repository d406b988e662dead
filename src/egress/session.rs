//! One reader's stream, whatever carries it: from the cursor to frames, until something ends it.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::{
    Egress,
    asked::{Asked, Begin},
    control::{Closing, Control},
    frame::Encoding,
    join::{self, Frames},
};
use crate::{
    access::Principal,
    engine::EngineError,
    event::{ClientId, Position, StreamKey},
    fanout::{Delivery, Entry, Gap, Identity, OpenRun, Reader, Start, Subscription, Transport},
    reason::{Reason, Refusal},
    shutdown::{Drain, Phase},
};

/// The most bytes of frames in one step, unless a single frame is larger.
const STEP_BYTES: usize = 64 * 1024;

/// How often the clock and the drain are looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long a reader that is behind when the drain begins still gets what is stored.
const DRAIN_LAG: Duration = Duration::from_secs(2);

/// What a reader's connection is to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// Send these frames; not empty.
    Send(Vec<Bytes>),
    /// Say why, and end.
    Close(Closing),
}

/// One reader's stream. Dropping it takes the reader out everywhere.
pub(super) struct Session {
    egress: Arc<Egress>,
    encoding: Encoding,
    principal: Arc<Principal>,
    stream: StreamKey,
    join: bool,
    subscription: Subscription,
    /// A gap that is told as soon as it is known what is open behind it.
    gap: Option<Gap>,
    /// Frames in order. No more are made before these are taken, so it holds what one delivery or tick makes.
    outbox: VecDeque<Bytes>,
    ending: Option<Reason>,
    ticks: Interval,
    heartbeat_at: Instant,
    /// The reader was told that its credential ends soon.
    noticed: bool,
    drain: Pin<Box<dyn Future<Output = ()> + Send>>,
    draining_since: Option<Instant>,
    /// The last valid ack, until `store_ack`.
    acked: Option<Position>,
    reader: Reader,
}

impl Session {
    /// Begins the stream that `asked` describes for whoever was admitted to it.
    ///
    /// # Errors
    /// `CONNECTION_LIMIT`, `ENGINE_UNAVAILABLE`.
    pub(super) async fn open(
        egress: Arc<Egress>,
        encoding: Encoding,
        principal: Arc<Principal>,
        stream: StreamKey,
        asked: Asked,
    ) -> Result<Self, Refusal> {
        let reader = enter(&egress, encoding, &stream, asked.client_id)?;
        let subscribed = async {
            let start = start(&egress, &stream, asked.begin).await?;
            let mut subscription = egress.hub.subscribe(&stream, start, asked.filter).await?;
            // Read behind the position that it is told with: what is not in it comes after that.
            let open_runs = subscription.open_runs().await?;
            Ok((subscription, open_runs))
        };
        let (subscription, open_runs) = subscribed.await.map_err(|error: EngineError| {
            Refusal::new(Reason::EngineUnavailable, error.to_string())
        })?;
        // Not before now: a reader that could not begin has replaced nobody.
        reader.replace();
        let heartbeat = egress.config.heartbeat;
        let mut ticks = tokio::time::interval(TICK.min(heartbeat).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let drain = egress.drain.clone();
        let mut session = Self {
            encoding,
            principal,
            stream,
            join: asked.join,
            subscription,
            gap: None,
            outbox: VecDeque::new(),
            ending: None,
            ticks,
            heartbeat_at: Instant::now() + heartbeat,
            noticed: false,
            drain: Box::pin(async move { drain.reached(Phase::Draining).await }),
            draining_since: None,
            acked: None,
            reader,
            egress,
        };
        session.establish(&open_runs);
        Ok(session)
    }

    fn establish(&mut self, open_runs: &[OpenRun]) {
        let connection_id = self.reader.identity().connection_id.clone();
        let position = self.position();
        tracing::debug!(%connection_id, stream = ?self.stream, %position, "a reader begins");
        let stream = self.stream.clone();
        self.push(&Control::Established {
            connection_id: &connection_id,
            user_id: stream.user().as_str(),
            position,
            heartbeat: self.egress.config.heartbeat,
            open_runs,
        });
    }

    /// Everything up to here has become frames, was left out by the filter, or is told as a gap.
    fn position(&self) -> Position {
        match self.gap {
            Some(gap) => gap.after,
            None => self.subscription.position(),
        }
    }

    /// Waits for what the connection is to do next. Cancel-safe. After `Close` it is `Close` for ever.
    pub(super) async fn next(&mut self) -> Step {
        loop {
            if !self.outbox.is_empty() {
                let batch = take_batch(&mut self.outbox, STEP_BYTES);
                if self.outbox.is_empty() {
                    self.reader.reached(self.position());
                }
                return Step::Send(batch);
            }
            if let Some(reason) = self.ending {
                return Step::Close(self.egress.closing(reason));
            }
            // What is stored comes before the drain: a reader that is not behind misses nothing by it.
            tokio::select! {
                biased;
                _ = self.ticks.tick() => self.tick(),
                reason = self.reader.ended() => self.ending = Some(reason),
                news = news(&mut self.subscription, &mut self.gap) => self.deliver(news),
                () = &mut self.drain => self.ending = Some(Reason::Draining),
            }
        }
    }

    /// Waits until it is to end, and says how, while a step is on its way. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Closing {
        let reason = tokio::select! {
            reason = self.reader.ended() => reason,
            () = left_behind(&self.egress.drain, &mut self.draining_since) => Reason::Draining,
        };
        self.egress.closing(reason)
    }

    /// The client has everything up to `acked`. `store_ack` has to follow.
    ///
    /// # Errors
    /// `INVALID_REQUEST` from a client without a `client_id`, and beyond what was sent.
    pub(super) fn acknowledge(&mut self, acked: Position) -> Result<(), Refusal> {
        let refused = |message: &str| Err(Refusal::new(Reason::InvalidRequest, message));
        if self.reader.identity().client_id.is_none() {
            return refused("an `ack` needs a `client_id` in the URL");
        }
        if acked.epoch != self.subscription.epoch() {
            // Of the stream's former life: what it says does not hold in this one.
            return Ok(());
        }
        let sent = self.position();
        if acked.epoch != sent.epoch || acked.offset > sent.offset {
            return refused(&format!(
                "`offset`: {} is beyond what was sent on this connection, which is up to {}",
                acked.offset.0, sent.offset.0
            ));
        }
        // An ack never moves back.
        let newest = self.acked.filter(|newest| newest.offset > acked.offset);
        self.acked = newest.or(Some(acked));
        Ok(())
    }

    /// Stores the acknowledgement that came since the last call.
    pub(super) fn store_ack(&mut self) {
        if let (Some(acked), Some(client_id)) =
            (self.acked.take(), &self.reader.identity().client_id)
        {
            let acks = self.egress.hub.acks();
            acks.acknowledge(&self.stream, client_id.clone(), acked);
        }
    }

    /// Takes a new credential of the same reader.
    ///
    /// # Errors
    /// Those of the credential; `TENANT_FORBIDDEN` and `USER_FORBIDDEN` when it is someone else's.
    pub(super) fn authenticate(&mut self, token: &str) -> Result<(), Refusal> {
        let renewed = self.egress.verify(token)?;
        if renewed.tenant != self.principal.tenant {
            return Err(Refusal::new(
                Reason::TenantForbidden,
                "the credential is of another tenant",
            ));
        }
        if renewed.subject != self.principal.subject {
            return Err(Refusal::new(
                Reason::UserForbidden,
                "the credential is of another subject",
            ));
        }
        renewed.may_read(Some(self.stream.user().clone()))?;
        self.principal = renewed;
        self.noticed = false;
        Ok(())
    }

    /// What depends on time only: expiry, heartbeats, and the drain for a reader that is behind.
    fn tick(&mut self) {
        if self.egress.drain.is_draining() {
            let since = *self.draining_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= DRAIN_LAG {
                self.ending = Some(Reason::Draining);
            }
        }
        let now = self.egress.clock.now();
        let at = self.principal.expires_at;
        if now >= self.egress.authenticator.ends_at(&self.principal) {
            self.ending = Some(Reason::CredentialExpired);
            return;
        }
        let after = at.since(now);
        if !self.noticed && after <= self.egress.config.expiring_notice {
            self.noticed = true;
            self.push(&Control::TokenExpiring { at, after });
        }
        if Instant::now() >= self.heartbeat_at {
            self.heartbeat_at = Instant::now() + self.egress.config.heartbeat;
            self.push(&Control::Heartbeat(self.position()));
        }
    }

    fn deliver(&mut self, news: Result<News, EngineError>) {
        match news {
            Ok((delivery, open_runs)) => match delivery {
                Delivery::Events {
                    entries,
                    lagging,
                    live,
                } => self.events(&entries, lagging, live),
                Delivery::Gap(gap) => self.push(&Control::Gap(gap, &open_runs)),
                Delivery::CaughtUp(position) => self.push(&Control::CaughtUp(position)),
            },
            Err(error) => {
                tracing::debug!(stream = ?self.stream, ?error, "a reader ends");
                self.ending = Some(Reason::EngineUnavailable);
            }
        }
    }

    fn events(&mut self, entries: &[Arc<Entry>], lagging: bool, live: bool) {
        let encoder = self.egress.encoder(self.encoding);
        let frames = if lagging && self.join {
            join::frames(entries, encoder)
        } else {
            Frames {
                bytes: entries.iter().map(|entry| entry.encoded(encoder)).collect(),
                joined: 0,
            }
        };
        let metrics = &self.egress.metrics;
        metrics.sent.increment(frames.bytes.len() as u64);
        metrics.joined.increment(frames.joined);
        if live {
            let now = self.egress.clock.now();
            for entry in entries {
                let age = now.since(entry.record.draft.recorded_at);
                metrics.delivery_seconds.record(age.as_secs_f64());
            }
        }
        self.outbox.extend(frames.bytes);
    }

    fn push(&mut self, control: &Control<'_>) {
        self.outbox.extend(control.encode(self.encoding));
    }
}

/// A place among the readers.
fn enter(
    egress: &Egress,
    encoding: Encoding,
    stream: &StreamKey,
    client_id: Option<ClientId>,
) -> Result<Reader, Refusal> {
    let (transport, gauge) = match encoding {
        Encoding::Json => (Transport::WebSocket, &egress.metrics.websockets),
        Encoding::Sse => (Transport::Sse, &egress.metrics.event_streams),
        Encoding::Proto => (Transport::Grpc, &egress.metrics.subscriptions),
    };
    let now = egress.clock.now();
    let identity = Identity {
        connection_id: egress.entropy.uuid(now).into(),
        stream: stream.clone(),
        client_id,
        transport,
        connected_at: now,
    };
    let most = egress.config.connections_per_user;
    egress.hub.readers().enter(identity, most, gauge)
}

/// Where a reader begins. A client that never acknowledged anything begins with everything retained.
async fn start(egress: &Egress, stream: &StreamKey, begin: Begin) -> Result<Start, EngineError> {
    let acked = match begin {
        Begin::At(start) => return Ok(start),
        Begin::Acked(client_id) => egress.hub.acks().of_client(stream, &client_id).await?,
    };
    Ok(acked.map_or(Start::Oldest, Start::After))
}

/// Waits until a drain has gone on for as long as a reader that is behind still gets what is stored. Cancel-safe.
async fn left_behind(drain: &Drain, since: &mut Option<Instant>) {
    drain.reached(Phase::Draining).await;
    let since = *since.get_or_insert_with(Instant::now);
    tokio::time::sleep_until(since + DRAIN_LAG).await;
}

/// What is to be told next, and where it is a gap, what is open behind it.
type News = (Delivery, Vec<OpenRun>);

/// Waits for news. A gap waits in `gap` until it is known what is open behind it. Cancel-safe.
async fn news(subscription: &mut Subscription, gap: &mut Option<Gap>) -> Result<News, EngineError> {
    let untold = match *gap {
        Some(untold) => untold,
        None => match subscription.next(STEP_BYTES).await? {
            Delivery::Gap(untold) => *gap.insert(untold),
            other => return Ok((other, Vec::new())),
        },
    };
    let open_runs = subscription.open_runs().await?;
    *gap = None;
    Ok((Delivery::Gap(untold), open_runs))
}

fn take_batch(outbox: &mut VecDeque<Bytes>, most: usize) -> Vec<Bytes> {
    let mut bytes = 0;
    let fit = outbox
        .iter()
        .take_while(|frame| {
            bytes += frame.len();
            bytes <= most
        })
        .count();
    outbox.drain(..fit.max(1).min(outbox.len())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_bounded_but_never_empty() {
        let outbox = |sizes: &[usize]| -> VecDeque<Bytes> {
            sizes
                .iter()
                .map(|size| Bytes::from(vec![b'x'; *size]))
                .collect()
        };
        for (sizes, want) in [
            (&[10][..], 1),
            (&[4, 4, 4], 2),
            (&[5, 5], 2),
            (&[11, 1], 1),
            (&[1, 11], 1),
        ] {
            let mut frames = outbox(sizes);
            assert_eq!(take_batch(&mut frames, 10).len(), want, "{sizes:?}");
            assert_eq!(frames.len(), sizes.len() - want);
        }
    }
}
