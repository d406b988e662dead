//! The sequencer over a real engine, and over one that misbehaves.

mod answers;
mod claims;
mod clocks;
mod faults;
mod hostile;
mod hung;
mod lanes;
mod leases;
mod missed;
mod nodes;
mod places;
mod recovery;
mod runs;
mod skew;
mod telling;
