//! What tests share: events, engines that misbehave on purpose, seeds.

pub(crate) mod asyncapi;
pub(crate) mod chance;
pub(crate) mod epoch_engine;
pub(crate) mod events;
pub(crate) mod faulty_engine;
pub(crate) mod gate;
pub(crate) mod places;
pub(crate) mod readers;
pub(crate) mod rig;
pub(crate) mod schedule;
pub(crate) mod seed;
