//! What tests share: events, engines that misbehave on purpose, seeds.

pub(crate) mod events;
pub(crate) mod seed;
