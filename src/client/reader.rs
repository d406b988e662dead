//! Reads one user's stream over WebSocket, and resumes by itself.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use rustls::ClientConfig;
use tokio::time::Instant;

use super::{
    Address, Credential, Frame, UrlError,
    backoff::Backoff,
    seen::Seen,
    socket::{End, Socket},
};
use crate::{clock::Entropy, event::Position, reason::Reason};

/// Where a reader begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Only what comes from now on.
    #[default]
    Head,
    /// Everything retained.
    Oldest,
    /// The start of the oldest run that is still open; the head, if none is.
    Open,
    /// After what the client acknowledged last; everything retained, if it never did. Needs a `client_id`.
    Acked,
    /// After this position, exclusive.
    After(Position),
}

/// What a reader asks for, and how it behaves.
#[derive(Clone, Debug, Default)]
pub struct ReaderConfig {
    /// Where it begins.
    pub start: Start,
    /// Names the client, the same at each of its connections. A named reader acknowledges, about once a second, what
    /// its caller has dealt with: everything before the item that the caller asks for.
    pub client_id: Option<String>,
    /// Only events of this thread.
    pub thread_id: Option<String>,
    /// Only events of this run.
    pub run_id: Option<String>,
    /// Only events of these types; empty: all.
    pub types: Vec<String>,
    /// Whether a reader that lags may get consecutive deltas as one event; `None`: as the server has it.
    pub join: Option<bool>,
    /// Randomness, for the waits between attempts.
    pub entropy: Entropy,
}

/// What a reader hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// Connected: what follows is after the frame's position, or the reader's own where it resumes.
    Established(Frame),
    /// An event. Each comes once.
    Event(Frame),
    /// Events may be missing here.
    Gap(Frame),
    /// Everything up to here that the filter admits has come.
    CaughtUp(Frame),
    /// Another word of the server's on the connection.
    Notice(Frame),
    /// The connection is gone, or did not come about. The reader comes back by itself.
    Disconnected {
        /// Why.
        reason: String,
        /// When it comes back.
        retry_in: Duration,
    },
}

/// The server will not have this reader back as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server refuses this reader ({code}): {reason}")]
pub struct Stopped {
    /// A WebSocket close code, or the HTTP status of the handshake.
    pub code: u16,
    /// The server's words.
    pub reason: String,
}

/// Reads one user's stream: that of the credential's subject.
pub struct Reader {
    url: String,
    tls: Option<Arc<ClientConfig>>,
    credential: Credential,
    config: ReaderConfig,
    seen: Seen,
    acked: Acked,
    state: State,
    backoff: Backoff,
    /// The least wait before the next attempt that the server asked for.
    asked: Option<Duration>,
}

enum State {
    /// The next attempt is due then.
    Waiting(Instant),
    /// Connected since then.
    Connected(Box<Socket>, Instant),
    /// For good.
    Stopped(Stopped),
}

/// The waits between attempts.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// A connection that lives as long was a success: the next failure is the first again.
const SUCCESS: Duration = Duration::from_secs(10);

/// The least time between two acknowledgements.
const ACK_EVERY: Duration = Duration::from_secs(1);

impl Reader {
    /// A reader of the HTTP port at `address`, such as `http://127.0.0.1:8080`. It connects when it is first asked.
    ///
    /// # Errors
    /// When `address` is no such address.
    pub fn new(
        address: impl Into<Address>,
        credential: Credential,
        config: ReaderConfig,
    ) -> Result<Self, UrlError> {
        let address = address.into();
        let cursor = match config.start {
            Start::After(position) => Some(position),
            Start::Head | Start::Oldest | Start::Open | Start::Acked => None,
        };
        Ok(Self {
            url: format!("{}/v1/stream", address.with_scheme("ws", "wss")?),
            tls: address.websocket_tls()?,
            credential,
            seen: Seen::after(cursor),
            acked: Acked::default(),
            state: State::Waiting(Instant::now()),
            backoff: Backoff::new(config.entropy.clone(), WAITS.0, WAITS.1),
            config,
            asked: None,
        })
    }

    /// The position to resume after: everything up to it came, was left out by the filter, or was told as a gap.
    pub fn position(&self) -> Option<Position> {
        self.seen.cursor()
    }

    /// The URL that it connects to, without a query.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The next item. Waits for the server for ever, and comes back to it however often it goes away. Cancel-safe: no
    /// event is lost.
    ///
    /// # Errors
    /// When the server says not to come back; from then on always.
    pub async fn next(&mut self) -> Result<Item, Stopped> {
        loop {
            let ack_due = self.ack_due();
            let frame = match &mut self.state {
                State::Stopped(stopped) => return Err(stopped.clone()),
                State::Waiting(due) => {
                    tokio::time::sleep_until(*due).await;
                    match Socket::connect(
                        &self.request_url(),
                        &self.credential.token(),
                        self.tls.clone(),
                    )
                    .await
                    {
                        Ok(socket) => {
                            self.state = State::Connected(Box::new(socket), Instant::now());
                            continue;
                        }
                        Err(end) => Err(end),
                    }
                }
                State::Connected(socket, _) => match ack_due {
                    None => socket.next().await,
                    Some(due) => tokio::select! {
                        biased;
                        () = tokio::time::sleep_until(due) => {
                            self.acknowledge().await;
                            continue;
                        }
                        frame = socket.next() => frame,
                    },
                },
            };
            let item = match frame {
                Ok(frame) => self.take(frame).await,
                Err(end) => Some(self.ended(&end)?),
            };
            if let Some(item) = item {
                return Ok(item);
            }
        }
    }

    /// Acknowledges everything that has come so far, if the reader has a name: its caller has dealt with it.
    pub async fn acknowledge(&mut self) {
        let cursor = self.seen.cursor();
        if self.ack_due().is_some()
            && let State::Connected(socket, _) = &mut self.state
            && let Some(Position { epoch, offset }) = cursor
        {
            self.acked.position = cursor;
            self.acked.at = Some(Instant::now());
            let (epoch, offset) = (epoch.to_string(), offset.0);
            let text = serde_json::json!({ "type": "ack", "epoch": epoch, "offset": offset });
            let _shows_at_the_next_frame = socket.send(text.to_string()).await;
        }
    }

    fn ack_due(&self) -> Option<Instant> {
        let due = self.acked.due(self.seen.cursor());
        due.filter(|_| self.config.client_id.is_some())
    }

    /// What a frame is to the caller; `None`: nothing.
    async fn take(&mut self, frame: Frame) -> Option<Item> {
        if !frame.is_control() {
            let position = frame.position();
            let new = position.is_none_or(|at| self.seen.admit(at, frame.event_id()));
            return new.then_some(Item::Event(frame));
        }
        match frame.kind() {
            "connection_heartbeat" => None,
            "connection_established" => {
                if let Some(position) = frame.position() {
                    self.seen.begin(position);
                }
                self.acked.begin(self.seen.cursor());
                Some(Item::Established(frame))
            }
            "connection_gap" => {
                if let Some(next) = frame.next() {
                    self.seen.jump(next);
                }
                Some(Item::Gap(frame))
            }
            "connection_caught_up" => {
                if let Some(position) = frame.position() {
                    self.seen.advance(position);
                }
                Some(Item::CaughtUp(frame))
            }
            "connection_closing" => {
                self.asked = frame.reconnect_after_ms().map(Duration::from_millis);
                Some(Item::Notice(frame))
            }
            "connection_token_expiring" => {
                self.renew().await;
                Some(Item::Notice(frame))
            }
            _ => Some(Item::Notice(frame)),
        }
    }

    /// Shows a new token on the same connection, if there is one. A failure shows at the next frame.
    async fn renew(&mut self) {
        if let State::Connected(socket, _) = &mut self.state
            && self.credential.renews()
        {
            let token = self.credential.token();
            let text = serde_json::json!({ "type": "authenticate", "token": token });
            let _shows_at_the_next_frame = socket.send(text.to_string()).await;
        }
    }

    /// What the end of a connection, or of the attempt at one, means.
    fn ended(&mut self, end: &End) -> Result<Item, Stopped> {
        if let State::Connected(_, since) = &self.state
            && since.elapsed() >= SUCCESS
        {
            self.backoff.reset();
        }
        if let Some(stopped) = stopped(end, self.credential.renews()) {
            self.state = State::Stopped(stopped.clone());
            return Err(stopped);
        }
        self.acked.lost();
        let retry_in = self.backoff.next(self.asked.take());
        self.state = State::Waiting(Instant::now() + retry_in);
        Ok(Item::Disconnected {
            reason: described(end),
            retry_in,
        })
    }

    /// Where to connect: after the cursor, where there is one.
    fn request_url(&self) -> String {
        let mut url = self.url.clone();
        let mut separator = '?';
        let mut add = |name: &str, value: &str| {
            url.push(separator);
            separator = '&';
            url.push_str(name);
            url.push('=');
            percent_encode(&mut url, value);
        };
        match (self.seen.cursor(), self.config.start) {
            (Some(cursor), _) => add("after", &cursor.to_string()),
            (None, Start::Oldest) => add("from", "oldest"),
            (None, Start::Open) => add("from", "open"),
            (None, Start::Acked) => add("from", "acked"),
            (None, Start::Head | Start::After(_)) => add("from", "head"),
        }
        if let Some(client_id) = &self.config.client_id {
            add("client_id", client_id);
        }
        if let Some(thread_id) = &self.config.thread_id {
            add("thread_id", thread_id);
        }
        if let Some(run_id) = &self.config.run_id {
            add("run_id", run_id);
        }
        if !self.config.types.is_empty() {
            add("types", &self.config.types.join(","));
        }
        if let Some(join) = self.config.join {
            add("join", if join { "true" } else { "false" });
        }
        url
    }
}

/// What was acknowledged last, and when.
#[derive(Default)]
struct Acked {
    /// The stream has begun: what came before that is not this reader's to acknowledge.
    begun: bool,
    position: Option<Position>,
    at: Option<Instant>,
}

impl Acked {
    /// The stream begins at `cursor`, unless it was begun before.
    fn begin(&mut self, cursor: Option<Position>) {
        if !std::mem::replace(&mut self.begun, true) {
            self.position = cursor;
        }
    }

    /// When a reader is to acknowledge `cursor`, if it has not.
    fn due(&self, cursor: Option<Position>) -> Option<Instant> {
        let due = self.at.map_or_else(Instant::now, |at| at + ACK_EVERY);
        (self.begun && cursor.is_some() && cursor != self.position).then_some(due)
    }

    /// Whether the last one arrived is not known: it is due again.
    fn lost(&mut self) {
        if self.at.take().is_some() {
            self.position = None;
        }
    }
}

/// Whether the server says not to come back. A credential that has expired is worth coming back only with another.
fn stopped(end: &End, renews: bool) -> Option<Stopped> {
    let expired = Reason::CredentialExpired;
    let (code, reason, for_good) = match end {
        End::Closed(code, reason) => {
            let expired = *code == expired.close_code();
            let for_good = (4500..5000).contains(code) || (expired && !renews);
            (*code, reason, for_good)
        }
        End::Refused(status, body) => {
            let expired = *status == expired.http_status() && body.contains(expired.name());
            // 408 and 429 are the client errors that pass.
            let client_error = (400..500).contains(status) && !matches!(*status, 408 | 429);
            (*status, body, client_error && !(expired && renews))
        }
        End::Lost(_) => return None,
    };
    for_good.then(|| Stopped {
        code,
        reason: reason.clone(),
    })
}

fn described(end: &End) -> String {
    match end {
        End::Closed(code, reason) if reason.is_empty() => format!("closed with {code}"),
        End::Closed(code, reason) => format!("closed with {code}: {reason}"),
        End::Refused(status, _) => format!("answered with HTTP status {status}"),
        End::Lost(reason) => reason.clone(),
    }
}

/// Adds `text` to a query: everything but letters, digits and `-._~` is escaped.
fn percent_encode(url: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(byte.into());
        } else {
            let _never_fails = write!(url, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests;
