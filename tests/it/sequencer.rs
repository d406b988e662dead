//! The sequencer over a real engine, and over one that misbehaves.

mod answers;
mod claims;
mod faults;
mod hostile;
mod lanes;
mod runs;
