//! Hostile bytes never do more than be refused.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;
use crate::{
    ingest::wire::split,
    proto::v1::{
        EmitRequest, PatchOp, PatchOperation, StateDelta, ToolExecuting, Usage, tool_executing,
    },
    reason::Reason,
};

/// How often requests are mutated.
const ROUNDS: usize = 10_000;

fn requests() -> Vec<Vec<u8>> {
    let json = r#"{"a":[1,{"pass\u0077ord":"\ud83d\ude00"}],"token":{"x":"}"}}"#;
    let tool = |input| {
        Payload::ToolExecuting(ToolExecuting {
            tool_name: "search".into(),
            input: Some(input),
            ..ToolExecuting::default()
        })
    };
    let payloads = [
        tool(tool_executing::Input::ParametersJson(json.into())),
        tool(tool_executing::Input::Parameters(nested_struct(30))),
        Payload::StateDelta(StateDelta {
            operations: vec![PatchOperation {
                op: PatchOp::Add.into(),
                path: "/a~0/b~1".into(),
                from: String::new(),
                value: Some(nested_list(20)),
            }],
        }),
        Payload::AgentStarted(v1::AgentStarted {
            message: "go".into(),
            silence_timeout: Some(prost_types::Duration {
                seconds: 60,
                nanos: 0,
            }),
            ..v1::AgentStarted::default()
        }),
    ];
    payloads
        .map(|payload| {
            let event = v1::Event {
                labels: [("k".into(), "v".into())].into(),
                traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
                occurred_at: Some(prost_types::Timestamp::default()),
                usage: Some(Usage {
                    input_tokens: 300,
                    ..Usage::default()
                }),
                ..event(payload)
            };
            EmitRequest { event: Some(event) }.encode_to_vec()
        })
        .into()
}

/// The request that holds `event`.
fn framed(event: &[u8]) -> Vec<u8> {
    let mut request = vec![0x0a];
    prost::encode_length_delimiter(event.len(), &mut request).unwrap();
    request.extend(event);
    request
}

fn mutate(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..=3) {
        let at = rng.random_range(0..bytes.len().max(1));
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 => bytes.truncate(at),
            3 if at <= bytes.len() => bytes.insert(at, rng.random()),
            4 if at < bytes.len() => drop(bytes.remove(at)),
            _ => {
                let from = rng.random_range(0..=at).min(bytes.len());
                let to = (from + rng.random_range(0..16)).min(bytes.len());
                let piece = bytes[from..to].to_vec();
                bytes.extend(piece);
            }
        }
    }
}

#[test]
fn mutated_requests_are_accepted_or_refused() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (requests, intake, producer) = (requests(), intake(), producer());
    for request in &requests {
        let events = split(request.clone().into(), 1).unwrap().events;
        intake
            .accept(&events[0], &producer, &mut Vec::new())
            .unwrap();
    }
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..ROUNDS {
        let mut request = requests.choose(&mut rng).unwrap().clone();
        if rng.random() {
            mutate(&mut rng, &mut request);
        } else {
            // Within a sound frame, more gets past the first length.
            let mut event = split(request.into(), 1).unwrap().events[0].to_vec();
            mutate(&mut rng, &mut event);
            request = framed(&event);
        }
        let Ok(parts) = split(request.into(), 1) else {
            refused += 1;
            continue;
        };
        for event in &parts.events {
            match intake.accept(event, &producer, &mut Vec::new()) {
                Ok(event) => {
                    accepted += 1;
                    v1::Event::decode(event.body).unwrap();
                }
                Err(refusal) => {
                    refused += 1;
                    assert!(
                        matches!(
                            refusal.reason,
                            Reason::InvalidEvent | Reason::TenantForbidden
                        ),
                        "{refusal}"
                    );
                    if refusal.reason == Reason::InvalidEvent {
                        assert!(!refusal.violations.is_empty(), "{refusal}");
                    }
                }
            }
        }
    }
    assert!(accepted > ROUNDS / 50, "{accepted}");
    assert!(refused > ROUNDS / 50, "{refused}");
}
