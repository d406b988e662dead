//! What comes in and what becomes of it.

mod accepted;
mod adjusted;
mod calls;
mod mutation;
mod refused;
mod usage;

use std::collections::BTreeSet;

use prost::Message as _;

use super::{Config, validate::Intake};
use crate::{
    access::{Principal, Scope},
    clock::{Clock, Entropy, Timestamp},
    event::{Event, ProducerId, Source, Tenant, UserId},
    proto::v1::{self, event::Payload},
    reason::Refusal,
};

/// A producer of the tenant `acme` that may address anyone.
fn producer() -> Principal {
    Principal {
        tenant: Tenant::new("acme").unwrap(),
        subject: UserId::new("producer").unwrap(),
        source: Source::new(ProducerId::new("producer").unwrap()),
        scopes: BTreeSet::from([Scope::Emit]),
        users: None,
        tier: None,
        expires_at: Timestamp::from_millis(u64::MAX),
    }
}

/// An intake with the defaults, at a fixed time.
fn intake() -> Intake {
    let clock = Clock::manual(Timestamp::from_millis(1_795_255_200_123));
    Intake::new(clock, Entropy::seeded(7), &Config::default())
}

/// A valid event with `payload`, which is not `custom`.
fn event(payload: Payload) -> v1::Event {
    v1::Event {
        event_id: "e1".into(),
        user_id: "u1".into(),
        run_id: "r1".into(),
        agent_name: "researcher".into(),
        payload: Some(payload),
        ..v1::Event::default()
    }
}

fn accept(event: &v1::Event) -> Result<Event, Refusal> {
    intake().accept(&event.encode_to_vec(), &producer(), &mut Vec::new())
}

/// The event in the body of `accepted`.
fn body(accepted: &Event) -> v1::Event {
    v1::Event::decode(accepted.body.clone()).unwrap()
}

fn string(text: &str) -> prost_types::Value {
    prost_types::Value::from(text.to_owned())
}

/// A struct inside a struct, `depth` in all, with a number in the innermost.
fn nested_struct(depth: usize) -> prost_types::Struct {
    let mut inner = prost_types::Value::from(1.0);
    for _ in 1..depth {
        inner = prost_types::Value::from(std::collections::BTreeMap::from([("a".into(), inner)]));
    }
    prost_types::Struct {
        fields: [("a".into(), inner)].into(),
    }
}

/// A list inside a list, `depth` in all.
fn nested_list(depth: usize) -> prost_types::Value {
    (1..depth).fold(prost_types::Value::from(vec![]), |inner, _| {
        prost_types::Value::from(vec![inner])
    })
}
