//! Readers: a cursor each, and nothing lost without a word.

mod acks;
mod caught_up;
mod gaps;
mod hints;
mod hung;
mod start;
mod tails;
