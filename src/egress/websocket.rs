//! One WebSocket: frames out as fast as its peer takes them, a few messages in, and a clean end.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    FutureExt, SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, Interval, MissedTickBehavior},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as SocketError, Message, Utf8Bytes,
        error::ProtocolError,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

use super::{
    Config, Egress,
    client_message::ClientMessage,
    control::{Closing, Control},
    fragments::{Fragments, TooManyFragments},
    limiter::Limiter,
    session::{Session, Step},
};
use crate::{
    net::{Activity, Conn},
    reason::{Reason, Refusal},
    shutdown::Phase,
};

type Socket = WebSocketStream<Fragments<Conn>>;

/// What reading from a socket gives.
type Heard = Option<Result<Message, SocketError>>;

/// What a socket reads into. It is held for as long as the socket lives.
const READ_BUFFER: usize = 4 * 1024;

/// From how many bytes on frames are written without waiting for more. A socket keeps about twice this.
const WRITE_BUFFER: usize = 16 * 1024;

/// How many answers to a client's messages may wait while a write is under way. Further ones are not given.
const REPLIES: usize = 32;

/// How many messages of a client are taken before something is written again.
const AT_ONCE: usize = 64;

/// The longest ack that does not count as a frame, in bytes. One takes about 70.
const ACK_BYTES: usize = 256;

/// How long a peer may take to take note of the end while the process waits for it.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How a conversation ends.
#[derive(Debug)]
enum End {
    /// The peer is gone.
    Gone,
    /// The peer closed.
    Left,
    /// We close, for a reason of the table.
    Closed(Closing),
    /// We close, for a reason of the WebSocket protocol.
    Broken(CloseCode, Reason),
}

/// Carries `session` over the connection that is about to be upgraded, until either ends.
pub(super) async fn serve(egress: Arc<Egress>, on_upgrade: OnUpgrade, session: Session) {
    // The session ends before the last words are said, and the process must not end between.
    let _parting = egress.hub.readers().parting();
    let Some(socket) = upgraded(&egress.config, on_upgrade).await else {
        egress.metrics.closed(None);
        return;
    };
    let mut peer = Peer::new(&egress, socket);
    let end = peer.converse(session).await;
    let (reason, last) = farewell(&end);
    tracing::debug!(?end, "a WebSocket ends");
    egress.metrics.closed(reason);
    if !matches!(end, End::Gone)
        && let Ok(socket) = peer.sink.reunite(peer.stream)
    {
        part(&egress, socket, last).await;
    }
}

/// Closes the connection that is about to be upgraded, for `refusal`.
pub(super) async fn refuse(egress: Arc<Egress>, on_upgrade: OnUpgrade, refusal: Refusal) {
    if let Some(socket) = upgraded(&egress.config, on_upgrade).await {
        let last = close(refusal.reason.close_code().into(), close_reason(&refusal));
        part(&egress, socket, vec![last]).await;
    }
}

/// The most bytes of a close frame's reason: a control frame has 125, and the code takes two.
const CLOSE_REASON: usize = 123;

/// What a close frame says of `refusal`: the reason's name, which scripts compare, and for an origin the message too, as
/// much as fits: a page cannot read the answer to any other request.
fn close_reason(refusal: &Refusal) -> String {
    let name = refusal.reason.name();
    if refusal.reason != Reason::OriginRefused {
        return name.to_owned();
    }
    let mut text = format!("{name}: {}", refusal.message);
    let end = (0..=CLOSE_REASON.min(text.len())).rev();
    let end = end.into_iter().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or_default());
    text
}

/// The socket, once the handshake's answer is sent.
async fn upgraded(config: &Config, on_upgrade: OnUpgrade) -> Option<Socket> {
    let upgraded = tokio::time::timeout(config.close_grace, on_upgrade)
        .await
        .ok()?
        .ok()?;
    let parts = upgraded.downcast::<TokioIo<Conn>>().ok()?;
    let most = Some(config.client_frame_bytes);
    // Writes need no bound here: a step holds at most so much, or one frame, and is flushed before the next.
    let limits = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(most)
        .max_frame_size(most);
    let (conn, early) = (parts.io.into_inner(), parts.read_buf.to_vec());
    let limiter = Limiter::new(config.client_frames_per_second, Instant::now());
    let conn = Fragments::new(conn, &early, limiter);
    Some(Socket::from_partially_read(conn, early, Role::Server, Some(limits)).await)
}

/// What `end` is counted as, and what the peer is told.
fn farewell(end: &End) -> (Option<Reason>, Vec<Message>) {
    match end {
        End::Gone | End::Left => (None, Vec::new()),
        End::Broken(code, reason) => (Some(*reason), vec![close(*code, "")]),
        End::Closed(closing) => {
            let reason = closing.reason;
            let last = vec![
                text(Control::Closing(*closing).json()),
                close(reason.close_code().into(), reason.name()),
            ];
            (Some(reason), last)
        }
    }
}

/// Says the last words and waits for the peer to take note, but not for ever, and less while the process waits for
/// this. What the peer still sends is read and dropped: closing with bytes unread would reset the connection, and the
/// last words with it.
async fn part(egress: &Egress, mut socket: Socket, last: Vec<Message>) {
    let parted = async {
        for message in last {
            if socket.send(message).await.is_err() {
                break;
            }
        }
        while let Some(Ok(_)) = socket.next().await {}
        // Not counted any more: the limit may be why this ends.
        let conn = &mut socket.get_mut().conn;
        let _gone_already = conn.shutdown().await;
        let mut unread = [0; 1024];
        while conn.read(&mut unread).await.is_ok_and(|read| read > 0) {}
    };
    let no_time_left = async {
        egress.drain.reached(Phase::Draining).await;
        tokio::time::sleep(DRAIN_GRACE).await;
    };
    tokio::select! {
        () = parted => {}
        () = tokio::time::sleep(egress.config.close_grace) => {}
        () = no_time_left => {}
    }
}

/// The other end of a socket.
struct Peer {
    sink: SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
    ear: Ear,
    egress: Arc<Egress>,
    activity: Arc<Activity>,
    pings: Interval,
    unanswered: Unanswered,
}

impl Peer {
    fn new(egress: &Arc<Egress>, socket: Socket) -> Self {
        let heartbeat = egress.config.heartbeat.max(Duration::from_millis(1));
        let mut pings = tokio::time::interval_at(Instant::now() + heartbeat, heartbeat);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let activity = socket.get_ref().conn.activity();
        let (sink, stream) = socket.split();
        Self {
            sink,
            stream,
            ear: Ear {
                limiter: Limiter::new(egress.config.client_frames_per_second, Instant::now()),
                free_acks: 0,
                replies: Vec::new(),
            },
            egress: egress.clone(),
            unanswered: Unanswered::since(activity.heard()),
            activity,
            pings,
        }
    }

    /// Talks until something ends it. The session ends with it, before the peer has taken note.
    async fn converse(&mut self, mut session: Session) -> End {
        match self.talk(&mut session).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn talk(&mut self, session: &mut Session) -> Result<Infallible, End> {
        loop {
            if !self.ear.replies.is_empty() {
                let replies = std::mem::take(&mut self.ear.replies);
                self.write(replies.into_iter().map(text), session).await?;
            }
            tokio::select! {
                biased;
                heard = self.stream.next() => {
                    self.ear.hear(heard, &mut self.stream, session, &self.egress)?;
                }
                _ = self.pings.tick() => {
                    self.unanswered.ping(self.activity.heard())?;
                    self.write([Message::Ping(Bytes::new())], session).await?;
                }
                step = session.next() => match step {
                    Step::Send(frames) => {
                        self.ear.free_acks += frames.len() as u64;
                        self.write(frames.into_iter().map(text), session).await?;
                    }
                    Step::Close(closing) => return Err(End::Closed(closing)),
                },
            }
        }
    }

    /// Writes `messages` and flushes once. Meanwhile the client is still heard, and no further write begins.
    async fn write(
        &mut self,
        messages: impl IntoIterator<Item = Message>,
        session: &mut Session,
    ) -> Result<(), End> {
        let begun = Instant::now();
        let stall = self.egress.config.write_stall;
        let sink = &mut self.sink;
        let mut written = pin!(async move {
            for message in messages {
                sink.feed(message).await?;
            }
            sink.flush().await
        });
        loop {
            tokio::select! {
                biased;
                done = &mut written => return done.map_err(|error| End::of(&error)),
                heard = self.stream.next() => {
                    self.ear.hear(heard, &mut self.stream, session, &self.egress)?;
                }
                closing = session.ended() => return Err(End::Closed(closing)),
                () = self.activity.stalled(begun, stall) => {
                    return Err(End::Closed(self.egress.closing(Reason::TooSlow)));
                }
            }
        }
    }
}

/// The pings since the peer was last heard. They are counted, and no time is: a process that was stopped for long has not
/// read yet what its peers sent.
struct Unanswered {
    pings: u32,
    /// How many signs of life there were at the last ping.
    heard: u64,
}

impl Unanswered {
    /// None yet, from a peer of which there were `heard` signs of life.
    fn since(heard: u64) -> Self {
        Self { pings: 0, heard }
    }

    /// One more ping is to be sent, after `heard` signs of life.
    ///
    /// # Errors
    /// A peer that answered neither of the last two is gone.
    fn ping(&mut self, heard: u64) -> Result<(), End> {
        if heard != self.heard {
            *self = Self::since(heard);
        }
        if self.pings == 2 {
            return Err(End::Gone);
        }
        self.pings += 1;
        Ok(())
    }
}

/// Reads what the client sends.
struct Ear {
    limiter: Limiter,
    /// How many acks may still come that do not count against `limiter`: one for each frame that was sent. So their
    /// parsing costs at most what the frames did.
    free_acks: u64,
    /// Answers that wait to be sent; at most `REPLIES`.
    replies: Vec<Bytes>,
}

impl Ear {
    /// Takes a message and those that arrived behind it, at most `AT_ONCE`. Of their acks only the last one is stored.
    fn hear(
        &mut self,
        first: Heard,
        stream: &mut SplitStream<Socket>,
        session: &mut Session,
        egress: &Egress,
    ) -> Result<(), End> {
        let mut heard = self.take(first, session, egress);
        for _ in 1..AT_ONCE {
            match stream.next().now_or_never() {
                Some(next) if heard.is_ok() => heard = self.take(next, session, egress),
                _ => break,
            }
        }
        // Also where the last message ends the connection.
        session.store_ack();
        heard
    }

    fn take(&mut self, heard: Heard, session: &mut Session, egress: &Egress) -> Result<(), End> {
        let message = match heard {
            None => return Err(End::Gone),
            Some(Err(error)) if has_too_many_fragments(&error) => {
                return Err(End::Closed(egress.closing(Reason::TooManyFrames)));
            }
            Some(Err(error)) => return Err(End::of(&error)),
            Some(Ok(Message::Close(_))) => return Err(End::Left),
            Some(Ok(message)) => message,
        };
        let size = message.len();
        let parsed = match message {
            Message::Text(text) => ClientMessage::parse(&text).map(Some),
            Message::Binary(_) => {
                let expected = "the message is binary: expected a text message";
                Err(Refusal::new(Reason::InvalidRequest, expected))
            }
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Ok(None),
        };
        let is_ack = matches!(parsed, Ok(Some(ClientMessage::Ack(_)))) && size <= ACK_BYTES;
        if is_ack && self.free_acks > 0 {
            self.free_acks -= 1;
        } else if !self.limiter.admit(Instant::now()) {
            return Err(End::Closed(egress.closing(Reason::TooManyFrames)));
        }
        let obeyed = parsed.and_then(|message| match message {
            Some(ClientMessage::Authenticate(token)) => session.authenticate(&token),
            Some(ClientMessage::Ack(acked)) => session.acknowledge(acked),
            None => Ok(()),
        });
        if let Err(refusal) = obeyed
            && self.replies.len() < REPLIES
        {
            let reply = Control::Error {
                reason: refusal.reason,
                message: &refusal.message,
            };
            self.replies.push(reply.json());
        }
        Ok(())
    }
}

fn has_too_many_fragments(error: &SocketError) -> bool {
    let SocketError::Io(error) = error else {
        return false;
    };
    let inner = error.get_ref();
    inner.is_some_and(|inner| inner.is::<TooManyFragments>())
}

impl End {
    /// How a socket's error ends the conversation.
    fn of(error: &SocketError) -> Self {
        match error {
            SocketError::Capacity(_) => Self::Broken(CloseCode::Size, Reason::LimitExceeded),
            SocketError::Utf8(_) => Self::Broken(CloseCode::Invalid, Reason::InvalidRequest),
            SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Gone,
            SocketError::Protocol(_) => Self::Broken(CloseCode::Protocol, Reason::InvalidRequest),
            _ => Self::Gone,
        }
    }
}

/// A text message of `json`, which is UTF-8 as all that is encoded here, and not checked again.
fn text(json: Bytes) -> Message {
    Message::Frame(Frame::message(json, OpCode::Data(Data::Text), true))
}

fn close(code: CloseCode, reason: impl Into<Utf8Bytes>) -> Message {
    Message::Close(Some(CloseFrame {
        code,
        reason: reason.into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_gone_that_answered_neither_of_the_last_two_pings() {
        // The signs of life so far at each ping, and whether the peer is there.
        for (heard, there) in [
            (&[7, 7][..], true),
            (&[7, 7, 7], false),
            (&[8, 8, 9, 9, 9], false),
            (&[8, 8, 9, 9], true),
            (&[7, 8, 8, 9, 9, 10], true),
            (&[7, 7, u64::MAX, 0, 0], true),
        ] {
            let mut unanswered = Unanswered::since(7);
            let pinged = heard.iter().try_for_each(|heard| unanswered.ping(*heard));
            assert_eq!(pinged.is_ok(), there, "{heard:?}");
        }
    }

    #[test]
    fn every_end_is_told_as_its_row_of_the_table_says() {
        for reason in Reason::ALL {
            let closing = Closing {
                reason,
                reconnect_after: None,
            };
            let (counted, last) = farewell(&End::Closed(closing));
            assert_eq!((counted, last.len()), (Some(reason), 2));
            let Some(Message::Close(Some(frame))) = last.last() else {
                panic!("{last:?}");
            };
            assert_eq!(u16::from(frame.code), reason.close_code());
            assert_eq!(frame.reason.as_str(), reason.name());
        }
        assert_eq!(farewell(&End::Left).1, vec![]);
    }

    #[test]
    fn a_refused_origin_is_named_in_the_close_reason_as_far_as_it_fits() {
        for (message, want) in [
            ("it is".to_owned(), "ORIGIN_REFUSED: it is".to_owned()),
            (
                "x".repeat(200),
                format!("ORIGIN_REFUSED: {}", "x".repeat(107)),
            ),
            // Two bytes each: a half of one is none.
            (
                "é".repeat(200),
                format!("ORIGIN_REFUSED: {}", "é".repeat(53)),
            ),
        ] {
            let refusal = Refusal::new(Reason::OriginRefused, message);
            assert_eq!(close_reason(&refusal), want);
        }
        let other = Refusal::new(Reason::Draining, "a message");
        assert_eq!(close_reason(&other), "DRAINING");
    }
}
