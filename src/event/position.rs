//! Places in a stream.

use std::{fmt, str::FromStr};

use crate::proto::v1;

/// The largest offset: JavaScript reads larger integers wrong.
pub const MAX_OFFSET: u64 = (1 << 53) - 1;

/// The incarnation of a stream. Random, never derived, never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// An epoch of random `bits`.
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits that it was made of.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Epoch {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let hex = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !hex {
            return Err(PositionError);
        }
        u64::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| PositionError)
    }
}

/// A place within an epoch. Strictly increasing, not dense; 0 is before the first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

/// An event's number in its run: 1, 2, 3 … within an epoch; 0 for an event without a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunSequence(pub u64);

/// A place in a stream. As a cursor it is exclusive: everything up to and with it has been dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The stream's incarnation.
    pub epoch: Epoch,
    /// The place within it.
    pub offset: Offset,
}

impl Position {
    /// The place `offset` of `epoch`.
    pub const fn new(epoch: Epoch, offset: Offset) -> Self {
        Self { epoch, offset }
    }
}

impl fmt::Display for Position {
    /// `<epoch>-<offset>`, as readers hand it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.offset.0)
    }
}

impl From<Position> for v1::Position {
    fn from(position: Position) -> Self {
        Self {
            epoch: position.epoch.to_string(),
            offset: position.offset.0,
        }
    }
}

/// A text or message that is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a position: 16 hexadecimal digits, a dash, and an offset of at most 2^53 - 1")]
pub struct PositionError;

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (epoch, offset) = text.split_once('-').ok_or(PositionError)?;
        let plain = !offset.is_empty() && offset.bytes().all(|b| b.is_ascii_digit());
        let offset: u64 = offset.parse().map_err(|_| PositionError)?;
        if !plain || offset > MAX_OFFSET {
            return Err(PositionError);
        }
        Ok(Self::new(epoch.parse()?, Offset(offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_as_it_was_written() {
        let position = Position::new(Epoch::new(0xab), Offset(42));
        assert_eq!(position.to_string(), "00000000000000ab-42");
        assert_eq!("00000000000000ab-42".parse(), Ok(position));
        assert_eq!(
            "00000000000000ab-9007199254740991".parse(),
            Ok(Position::new(Epoch::new(0xab), Offset(MAX_OFFSET)))
        );
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in [
            "",
            "-",
            "ab-1",
            "00000000000000ab",
            "00000000000000ab-",
            "00000000000000ab-+1",
            "00000000000000ab--1",
            "00000000000000AB-1",
            "00000000000000ab-9007199254740992",
            "00000000000000ab-99999999999999999999",
        ] {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text:?}");
        }
    }
}
