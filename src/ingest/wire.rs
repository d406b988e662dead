//! Splits the body of a call into events that are still encoded.
//!
//! `EmitRequest` and `EmitBatchRequest` look the same on the wire: events in field 1. Splitting them first bounds
//! what a call may cost, measures each event as it was received, and confines a malformed event to itself.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::{Message, decode_length_delimiter};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

/// The events of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// The bytes of each event, in order; at most one more than the codec's bound.
    pub(super) events: Vec<Bytes>,
    /// The size of the whole message.
    pub(super) bytes: usize,
}

/// A message that is cut short or no protobuf at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message cannot be decoded")]
pub(super) struct Malformed;

/// What a call's body is to those who answer it, who also answer a malformed one.
pub(super) type Parsed = Result<Split, Malformed>;

/// A codec that answers with `R` and takes in `Parsed`.
pub(super) struct SplitCodec<R> {
    most: usize,
    answer: PhantomData<R>,
}

impl<R> SplitCodec<R> {
    /// A codec that stops at the first event beyond `most`.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            answer: PhantomData,
        }
    }
}

impl<R: Message + Send + 'static> Codec for SplitCodec<R> {
    type Encode = R;
    type Decode = Parsed;
    type Encoder = ProstEncoder<R>;
    type Decoder = SplitDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        SplitDecoder { most: self.most }
    }
}

/// See [`SplitCodec`].
pub(super) struct SplitDecoder {
    most: usize,
}

impl Decoder for SplitDecoder {
    type Item = Parsed;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Parsed>, Status> {
        let message = message.copy_to_bytes(message.remaining());
        Ok(Some(split(message, self.most)))
    }
}

/// The key of field 1, length-delimited.
const EVENT: usize = 1 << 3 | 2;

/// The events in `message`, without looking beyond the first that is more than `most`.
pub(super) fn split(mut message: Bytes, most: usize) -> Parsed {
    let mut split = Split {
        bytes: message.len(),
        ..Split::default()
    };
    while message.has_remaining() && split.events.len() <= most {
        let key = varint(&mut message)?;
        if key == EVENT {
            let length = varint(&mut message)?;
            split.events.push(take(&mut message, length)?);
        } else {
            skip(&mut message, key)?;
        }
    }
    Ok(split)
}

/// Skips the value of a field that this version does not know. Groups never were part of this contract.
fn skip(message: &mut Bytes, key: usize) -> Result<(), Malformed> {
    const VARINT: usize = 0;
    const FIXED_64: usize = 1;
    const DELIMITED: usize = 2;
    const FIXED_32: usize = 5;
    let length = match key & 7 {
        _ if key >> 3 == 0 => return Err(Malformed),
        VARINT => return varint(message).map(drop),
        DELIMITED => varint(message)?,
        FIXED_64 => 8,
        FIXED_32 => 4,
        _ => return Err(Malformed),
    };
    take(message, length).map(drop)
}

fn varint(message: &mut Bytes) -> Result<usize, Malformed> {
    decode_length_delimiter(message).map_err(|_| Malformed)
}

fn take(message: &mut Bytes, length: usize) -> Result<Bytes, Malformed> {
    if length > message.len() {
        return Err(Malformed);
    }
    Ok(message.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(message: &[u8], most: usize) -> Result<Vec<Bytes>, Malformed> {
        split(Bytes::copy_from_slice(message), most).map(|split| {
            assert_eq!(split.bytes, message.len());
            split.events
        })
    }

    #[test]
    fn events_come_out_in_order_and_other_fields_are_skipped() {
        let message = [
            0x0a, 2, b'a', b'b', // an event
            0x10, 0x96, 0x01, // field 2, a varint
            0x0a, 0, // an empty event
            0x1a, 1, b'x', // field 3, delimited
            0x21, 1, 2, 3, 4, 5, 6, 7, 8, // field 4, 64 bits
            0x2d, 1, 2, 3, 4, // field 5, 32 bits
            0x0a, 1, b'c',
        ];
        let want: Vec<Bytes> = ["ab", "", "c"].map(Bytes::from).into();
        assert_eq!(events(&message, 3).as_deref(), Ok(&want[..]));
        assert_eq!(events(&message, 1).as_deref(), Ok(&want[..2]));
        assert_eq!(events(&[], 1).as_deref(), Ok(&[][..]));
    }

    #[test]
    fn what_is_cut_short_is_malformed() {
        for message in [
            &[0x0a][..],
            &[0x0a, 1],
            &[0x0a, 0x80],
            &[
                0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ],
            &[0x10],
            &[0x1a, 2, 0],
            &[0x21, 0],
            &[0x2d, 0, 0, 0],
            &[0x00, 0],
            &[0x0b, 0x0c],
            &[0x0e],
        ] {
            assert_eq!(events(message, 9), Err(Malformed), "{message:x?}");
        }
    }

    #[test]
    fn a_hostile_batch_of_empty_events_costs_no_more_than_its_bound() {
        let message = [0x0a, 0].repeat(2_000_000);
        assert_eq!(events(&message, 1000).unwrap().len(), 1001);
    }
}
