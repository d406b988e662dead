//! Collects the body of a call. The gRPC library would reserve what a length prefix announces: five bytes would hold 4 MiB.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::Frame;
use tokio::time::{Instant, Sleep};
use tonic::{
    Status,
    codegen::{Body as HttpBody, StdError},
};

use crate::reason::to_status;

/// The compression flag and the length before a gRPC message.
const PREFIX: usize = 5;

/// Why a body is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotArrived {
    /// Its message has, or announces, more than so many bytes.
    TooLarge(usize),
    /// It took longer than `limits.request_body`.
    Overdue,
    /// The caller's deadline passed.
    Deadline,
    /// The caller reset the stream, or sent half a message.
    Broken,
    /// The unfinished bodies of these take too many bytes.
    NoRoom(&'static str),
}

/// The length that the prefix of a message announces, once it is there.
fn announced(bytes: &[u8]) -> Option<usize> {
    let [_, length @ ..] = bytes.first_chunk::<PREFIX>()?;
    Some(u32::from_be_bytes(*length) as usize)
}

/// All of `body`, a message of at most `limit` bytes. While more is awaited, `hold` is called with the bytes so far; its
/// error ends this.
pub(super) async fn collect<B>(
    body: B,
    limit: usize,
    mut hold: impl FnMut(usize) -> Result<(), NotArrived>,
) -> Result<Bytes, NotArrived>
where
    B: HttpBody<Error: Into<StdError>>,
{
    let mut body = pin!(body);
    let mut bytes = BytesMut::new();
    loop {
        let held = bytes.len();
        let frame = poll_fn(|cx| match body.as_mut().poll_frame(cx) {
            Poll::Pending => match hold(held) {
                Ok(()) => Poll::Pending,
                Err(no_room) => Poll::Ready(Err(no_room)),
            },
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
        });
        match frame.await? {
            None => {
                let missing = announced(&bytes).is_some_and(|length| length > bytes.len() - PREFIX);
                return match missing {
                    true => Err(NotArrived::Broken),
                    false => Ok(bytes.freeze()),
                };
            }
            Some(Err(_)) => return Err(NotArrived::Broken),
            // Copied: a piece of the transport's buffer would keep all of that buffer.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    append(&mut bytes, data);
                }
            }
        }
        let too_large = announced(&bytes).is_some_and(|length| length > limit);
        if too_large || bytes.len() > PREFIX + limit {
            return Err(NotArrived::TooLarge(limit));
        }
    }
}

fn append(bytes: &mut BytesMut, mut data: impl Buf) {
    while data.has_remaining() {
        let chunk = data.chunk();
        bytes.extend_from_slice(chunk);
        let length = chunk.len();
        data.advance(length);
    }
}

/// A stream of messages that hands each on when it is whole.
pub(super) struct WholeMessages<B> {
    body: Pin<Box<B>>,
    bytes: BytesMut,
    limit: usize,
    /// When the stream must have ended.
    until: Pin<Box<Sleep>>,
    ended: bool,
}

impl<B> WholeMessages<B>
where
    B: HttpBody<Error: Into<StdError>>,
{
    /// The messages of `body`, of at most `limit` bytes each, until `until`.
    pub(super) fn new(body: B, limit: usize, until: Instant) -> Self {
        Self {
            body: Box::pin(body),
            bytes: BytesMut::new(),
            limit,
            until: Box::pin(tokio::time::sleep_until(until)),
            ended: false,
        }
    }

    /// Waits until a message, or the end, is there.
    pub(super) async fn first(&mut self) -> Result<(), NotArrived> {
        poll_fn(|cx| self.poll_message(cx)).await.map(drop)
    }

    /// The length of the next message with its prefix, once it is there; `None` at the end.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, NotArrived>> {
        loop {
            let length = announced(&self.bytes);
            if length.is_some_and(|length| length > self.limit) {
                return Poll::Ready(Err(NotArrived::TooLarge(self.limit)));
            }
            let whole = length.map(|length| PREFIX + length);
            if whole.is_some_and(|whole| whole <= self.bytes.len()) {
                return Poll::Ready(Ok(whole));
            }
            if self.ended {
                return Poll::Ready(match self.bytes.is_empty() {
                    true => Ok(None),
                    false => Err(NotArrived::Broken),
                });
            }
            if self.until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(NotArrived::Overdue));
            }
            match ready!(self.body.as_mut().poll_frame(cx)) {
                None => self.ended = true,
                Some(Err(_)) => return Poll::Ready(Err(NotArrived::Broken)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        append(&mut self.bytes, data);
                    }
                }
            }
        }
    }
}

impl<B> HttpBody for WholeMessages<B>
where
    B: HttpBody<Error: Into<StdError>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let message = ready!(this.poll_message(cx));
        Poll::Ready(match message {
            Ok(None) => None,
            Ok(Some(length)) => Some(Ok(Frame::data(this.bytes.split_to(length).freeze()))),
            Err(problem) => Some(Err(to_status(&problem.refusal()))),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible, time::Duration};

    use super::*;

    /// A body that is pending once before each piece, then ends, or does not.
    struct Pieces {
        pieces: VecDeque<Vec<u8>>,
        pending: bool,
        ends: bool,
    }

    fn pieces(all: &[&[u8]], ends: bool) -> Pieces {
        Pieces {
            pieces: all.iter().map(|piece| piece.to_vec()).collect(),
            pending: false,
            ends,
        }
    }

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.pending = !self.pending;
            if self.pending {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.pieces.pop_front() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece.into())))),
                None if self.ends => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    #[tokio::test]
    async fn a_body_is_collected_and_charged_as_it_arrives() {
        let mut held = Vec::new();
        let body = pieces(&[b"\0\0\0", b"\0\x03a", b"bc"], true);
        let collected = collect(body, 3, |bytes| {
            held.push(bytes);
            Ok(())
        });
        assert_eq!(collected.await.unwrap(), "\0\0\0\0\x03abc");
        assert_eq!(held, [0, 3, 6, 8]);
    }

    #[tokio::test]
    async fn a_body_is_refused_by_what_it_announces_or_has() {
        for (all, want) in [
            (&[&b"\0\0\0\0\x04"[..]][..], NotArrived::TooLarge(3)),
            (&[b"\0\0\0\0\x03", b"abcd"], NotArrived::TooLarge(3)),
            (&[b"\0\xff\xff\xff\xff"], NotArrived::TooLarge(3)),
            (&[b"\0\0", b"\0\0\x03"], NotArrived::NoRoom("x")),
        ] {
            let hold = |bytes| match bytes {
                2 => Err(NotArrived::NoRoom("x")),
                _ => Ok(()),
            };
            assert_eq!(collect(pieces(all, false), 3, hold).await, Err(want));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn messages_of_a_stream_come_whole_and_in_time() {
        use http_body_util::BodyExt;
        let until = Instant::now() + Duration::from_secs(30);
        let body = pieces(&[b"\0\0\0\0", b"\x01a\0\0", b"\0\0\0\0\0\0\0\x09"], false);
        let mut messages = WholeMessages::new(body, 8, until);
        messages.first().await.unwrap();
        for want in ["\0\0\0\0\x01a", "\0\0\0\0\0"] {
            let frame = messages.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), want);
        }
        let status = messages.frame().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");

        let mut silent = WholeMessages::new(pieces(&[b"\0\0"], false), 8, until);
        assert_eq!(silent.first().await, Err(NotArrived::Overdue));
    }
}
