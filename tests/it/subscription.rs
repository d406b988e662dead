//! Readers: a cursor each, and nothing lost without a word.

mod acks;
mod caught_up;
mod gaps;
mod hints;
mod start;
mod tails;
