//! Bounds the fragments of a WebSocket client's messages. The protocol's library joins them before it returns a message,
//! and takes any number of empty ones: 12 million a second of these keep a core busy.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::limiter::Limiter;

/// The error of a read that exceeds the bound.
#[derive(Debug, thiserror::Error)]
#[error("the client sends fragments too fast")]
pub(super) struct TooManyFragments;

/// A connection that carries WebSocket frames. A read fails with `TooManyFragments` once the peer has sent more frames
/// that do not end their message than the limiter admits.
pub(super) struct Fragments<C> {
    pub(super) conn: C,
    scan: Scan,
    limiter: Limiter,
}

impl<C> Fragments<C> {
    /// Bounds the fragments of `conn`. `early` is what was already read from it.
    pub(super) fn new(conn: C, early: &[u8], mut limiter: Limiter) -> Self {
        let mut scan = Scan::default();
        let now = Instant::now();
        for _ in 0..scan.fragments(early) {
            limiter.admit(now);
        }
        Self {
            conn,
            scan,
            limiter,
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Fragments<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.conn).poll_read(cx, buf);
        let read = buf.filled().get(before..).unwrap_or_default();
        let fragments = this.scan.fragments(read);
        let now = Instant::now();
        // The limiter's bound ends this loop, not the peer.
        if (0..fragments).all(|_| this.limiter.admit(now)) {
            return polled;
        }
        Poll::Ready(Err(io::Error::other(TooManyFragments)))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Fragments<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().conn).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().conn).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.conn.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().conn).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().conn).poll_shutdown(cx)
    }
}

/// Finds the heads of a client's frames in the bytes of a connection (RFC 6455, section 5.2).
#[derive(Default)]
struct Scan {
    /// What has arrived of the next head: at most 14 bytes.
    head: Vec<u8>,
    /// What is missing of the current payload.
    payload: u64,
}

impl Scan {
    /// How many frames that do not end their message have their head end within `bytes`.
    fn fragments(&mut self, mut bytes: &[u8]) -> usize {
        let mut fragments = 0;
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX);
            let skipped = skipped.min(bytes.len());
            self.payload -= skipped as u64;
            let Some((byte, rest)) = bytes.get(skipped..).and_then(<[u8]>::split_first) else {
                break;
            };
            bytes = rest;
            self.head.push(*byte);
            if let Some(payload) = payload_of(&self.head) {
                let is_final = self.head.first().is_some_and(|first| first & 0x80 != 0);
                fragments += usize::from(!is_final);
                self.payload = payload;
                self.head.clear();
            }
        }
        fragments
    }
}

/// The length of the payload behind `head`, once the head is whole.
fn payload_of(head: &[u8]) -> Option<u64> {
    let [_, second, rest @ ..] = head else {
        return None;
    };
    let masked = if second & 0x80 == 0 { 0 } else { 4 };
    let length_bytes = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if rest.len() < length_bytes + masked {
        return None;
    }
    let extended = rest.iter().take(length_bytes);
    Some(match length_bytes {
        0 => u64::from(second & 0x7f),
        _ => extended.fold(0, |length, byte| length << 8 | u64::from(*byte)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a mask of zeros.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match u16::try_from(length) {
            Ok(short) if short < 126 => frame.push(0x80 | short as u8),
            Ok(short) => {
                frame.push(0x80 | 126);
                frame.extend(short.to_be_bytes());
            }
            Err(_) => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.resize(frame.len() + length, 0);
        frame
    }

    #[test]
    fn frames_that_do_not_end_their_message_are_counted_however_they_arrive() {
        let frames = [
            frame(0x01, 0),
            frame(0x00, 125),
            frame(0x89, 3),
            frame(0x00, 126),
            frame(0x00, 70_000),
            frame(0x80, 5),
            frame(0x81, 0),
        ]
        .concat();
        for piece in [1, 2, 7, 4096, frames.len()] {
            let mut scan = Scan::default();
            let counted: usize = frames
                .chunks(piece)
                .map(|bytes| scan.fragments(bytes))
                .sum();
            assert_eq!(counted, 4, "in pieces of {piece}");
            assert_eq!((scan.head.len(), scan.payload), (0, 0));
        }
    }
}
