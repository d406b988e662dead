//! What a reader has seen, so that its caller sees each event once.

use std::collections::{HashMap, VecDeque};

use crate::event::{Epoch, Position};

/// How many event ids are remembered, for the day when the epoch changes.
const RECENT: usize = 10_000;

/// A reader's cursor and the ids behind it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    cursor: Option<Position>,
    /// Recent ids with the epoch that each was seen in, oldest first in `order`.
    ids: HashMap<String, Epoch>,
    order: VecDeque<String>,
}

impl Seen {
    /// Nothing seen yet after `cursor`.
    pub(super) fn after(cursor: Option<Position>) -> Self {
        Self {
            cursor,
            ..Self::default()
        }
    }

    /// Everything up to and with this is dealt with.
    pub(super) fn cursor(&self) -> Option<Position> {
        self.cursor
    }

    /// The stream begins at `position`, unless it was begun before.
    pub(super) fn begin(&mut self, position: Position) {
        self.cursor.get_or_insert(position);
    }

    /// Everything up to `position` is dealt with; never backwards within an epoch.
    pub(super) fn advance(&mut self, position: Position) {
        if self.is_ahead(position) {
            self.cursor = Some(position);
        }
    }

    /// Events may be missing: the cursor is `next` from here on, also where that is lower.
    pub(super) fn jump(&mut self, next: Position) {
        self.cursor = Some(next);
    }

    /// Takes the event in; `false`: it was seen before. Within an epoch its place tells, across epochs its id.
    pub(super) fn admit(&mut self, position: Position, event_id: Option<&str>) -> bool {
        if !self.is_ahead(position) {
            return false;
        }
        self.cursor = Some(position);
        event_id.is_none_or(|id| self.remember(id, position.epoch))
    }

    fn is_ahead(&self, position: Position) -> bool {
        self.cursor
            .is_none_or(|cursor| cursor.epoch != position.epoch || cursor.offset < position.offset)
    }

    /// `false`: the id was seen in another epoch.
    fn remember(&mut self, id: &str, epoch: Epoch) -> bool {
        if let Some(seen) = self.ids.get(id) {
            return *seen == epoch;
        }
        if self.order.len() >= RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.order.push_back(id.to_owned());
        self.ids.insert(id.to_owned(), epoch);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Offset;

    fn at(epoch: u64, offset: u64) -> Position {
        Position::new(Epoch::new(epoch), Offset(offset))
    }

    #[test]
    fn within_an_epoch_the_place_tells() {
        let mut seen = Seen::default();
        seen.begin(at(1, 5));
        seen.begin(at(1, 9));
        assert_eq!(seen.cursor(), Some(at(1, 5)));
        assert!(!seen.admit(at(1, 5), Some("a")));
        assert!(seen.admit(at(1, 6), Some("b")));
        assert!(!seen.admit(at(1, 6), Some("b")));
        // The dedupe window is over, and the id was used again: another event.
        assert!(seen.admit(at(1, 8), Some("b")));
        seen.advance(at(1, 12));
        seen.advance(at(1, 3));
        assert_eq!(seen.cursor(), Some(at(1, 12)));
        seen.jump(at(1, 2));
        assert!(seen.admit(at(1, 3), None));
    }

    #[test]
    fn across_epochs_the_id_tells() {
        let mut seen = Seen::default();
        assert!(seen.admit(at(1, 1), Some("a")));
        assert!(seen.admit(at(1, 2), Some("b")));
        seen.jump(at(2, 0));
        assert!(!seen.admit(at(2, 1), Some("a")));
        assert!(!seen.admit(at(2, 2), Some("b")));
        assert!(seen.admit(at(2, 3), Some("c")));
        assert_eq!(seen.cursor(), Some(at(2, 3)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Seen::default();
        for n in 0..3 * RECENT as u64 {
            assert!(seen.admit(at(1, n + 1), Some(&format!("e{n}"))));
        }
        assert_eq!((seen.ids.len(), seen.order.len()), (RECENT, RECENT));
    }
}
