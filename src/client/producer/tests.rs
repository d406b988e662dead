use std::collections::VecDeque;

use tokio::net::{TcpListener, TcpSocket};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Response, transport::Server};

use super::*;
use crate::{
    proto::v1::{
        EmitBatchResponse, EmitResponse,
        event_emitter_server::{EventEmitter, EventEmitterServer},
    },
    reason::{self, to_status},
};

/// What the scripted server answers to one call: per event in order, or the whole call.
enum Answer {
    Call(Status),
    Each(Vec<Result<(), Reason>>),
}

/// A server that answers by a script, and notes what it was asked: (token, event ids).
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<(String, Vec<String>)>>,
}

impl Script {
    fn step<T>(&self, request: &Request<T>, events: &[Event]) -> Result<Vec<EmitResult>, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .unwrap()
            .to_str()
            .unwrap();
        let ids = events.iter().map(|event| event.event_id.clone()).collect();
        self.asked.lock().push((token.to_owned(), ids));
        let each = match self.answers.lock().pop_front().unwrap() {
            Answer::Call(status) => return Err(status),
            Answer::Each(each) => each,
        };
        let result = |(event, fate): (&Event, Result<(), Reason>)| EmitResult {
            outcome: Some(match fate {
                Ok(()) => Outcome::Receipt(Receipt {
                    event_id: event.event_id.clone(),
                    ..Receipt::default()
                }),
                Err(reason) => Outcome::Refusal(grpc::refusal(&status(reason))),
            }),
        };
        Ok(events.iter().zip(each).map(result).collect())
    }
}

fn status(reason: Reason) -> Status {
    to_status(&reason::Refusal::new(reason, "no"))
}

#[tonic::async_trait]
impl EventEmitter for Arc<Script> {
    async fn emit(&self, request: Request<EmitRequest>) -> Result<Response<EmitResponse>, Status> {
        let events: Vec<Event> = request.get_ref().event.clone().into_iter().collect();
        let mut results = self.step(&request, &events)?;
        match results.pop().map(fate) {
            Some(Ok(receipt)) => Ok(Response::new(EmitResponse {
                receipt: Some(receipt),
            })),
            _ => Err(Status::unknown("the script is wrong")),
        }
    }

    async fn emit_batch(
        &self,
        request: Request<EmitBatchRequest>,
    ) -> Result<Response<EmitBatchResponse>, Status> {
        let events = request.get_ref().events.clone();
        let results = self.step(&request, &events)?;
        Ok(Response::new(EmitBatchResponse {
            results,
            refused_count: 0,
            ..Default::default()
        }))
    }
}

async fn producer(credential: Credential, answers: Vec<Answer>) -> (Producer, Arc<Script>) {
    let script = Arc::new(Script {
        answers: Mutex::new(answers.into()),
        ..Script::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = EventEmitterServer::new(script.clone());
    let serving = Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    let config = ProducerConfig {
        deadline: Duration::from_secs(60),
        ..ProducerConfig::default()
    };
    (Producer::new(&url, credential, config).unwrap(), script)
}

fn named(id: &str) -> Event {
    Event {
        event_id: id.into(),
        ..Event::default()
    }
}

#[tokio::test]
async fn a_retry_carries_the_same_id() {
    let answers = vec![
        Answer::Call(status(Reason::OutcomeUnknown)),
        Answer::Call(Status::unavailable("a proxy speaks")),
        Answer::Each(vec![Ok(())]),
    ];
    let (producer, script) = producer(Credential::fixed("tok"), answers).await;
    let receipt = producer.emit(Event::default()).await.unwrap();
    assert_eq!(receipt.event_id.len(), 36);
    let asked = script.asked.lock();
    assert_eq!(asked.len(), 3);
    for (token, ids) in &*asked {
        assert_eq!(
            (token.as_str(), &ids[..]),
            ("Bearer tok", &[receipt.event_id.clone()][..])
        );
    }
}

#[tokio::test]
async fn a_refusal_is_final_and_whole() {
    let refusal = reason::Refusal::invalid_field(Reason::InvalidEvent, "run_id", "is required")
        .with("fact", "true");
    let answers = vec![Answer::Call(to_status(&refusal))];
    let (producer, script) = producer(Credential::fixed("tok"), answers).await;
    let refusal = producer.emit(Event::default()).await.unwrap_err();
    assert_eq!(refusal.reason, "INVALID_EVENT");
    assert_eq!(refusal.violations[0].field, "run_id");
    assert_eq!(refusal.metadata["fact"], "true");
    assert_eq!(script.asked.lock().len(), 1);
}

#[tokio::test]
async fn of_a_batch_only_what_may_pass_is_sent_again_in_order() {
    let answers = vec![
        Answer::Each(vec![
            Ok(()),
            Err(Reason::EngineUnavailable),
            Err(Reason::InvalidEvent),
            Err(Reason::PrecedingFailed),
            Ok(()),
        ]),
        Answer::Call(status(Reason::OutcomeUnknown)),
        Answer::Each(vec![Ok(()), Err(Reason::EventIdReused)]),
    ];
    let (producer, script) = producer(Credential::fixed("tok"), answers).await;
    let events = ["a", "b", "c", "d", "e"].map(named).to_vec();
    let fates: Vec<String> = producer
        .emit_batch(events)
        .await
        .into_iter()
        .map(|fate| fate.map_or_else(|refusal| refusal.reason, |receipt| receipt.event_id))
        .collect();
    assert_eq!(fates, ["a", "b", "INVALID_EVENT", "EVENT_ID_REUSED", "e"]);
    let asked: Vec<Vec<String>> = script
        .asked
        .lock()
        .iter()
        .map(|(_, ids)| ids.clone())
        .collect();
    assert_eq!(asked[1..], [["b", "d"], ["b", "d"]]);
}

#[tokio::test]
async fn an_expired_credential_is_renewed_once_there_is_another() {
    let answers = vec![
        Answer::Call(status(Reason::CredentialExpired)),
        Answer::Each(vec![Ok(())]),
    ];
    let count = Mutex::new(0);
    let credential = Credential::renewed(move || {
        *count.lock() += 1;
        count.lock().to_string()
    });
    let (producer, script) = producer(credential, answers).await;
    producer.emit(named("a")).await.unwrap();
    let tokens: Vec<String> = script
        .asked
        .lock()
        .iter()
        .map(|(token, _)| token.clone())
        .collect();
    assert_eq!(tokens, ["Bearer 1", "Bearer 2"]);

    let answers = vec![Answer::Call(status(Reason::CredentialExpired))];
    let (producer, _) = self::producer(Credential::fixed("tok"), answers).await;
    let refusal = producer.emit(named("a")).await.unwrap_err();
    assert_eq!(refusal.reason, "CREDENTIAL_EXPIRED");
}

#[tokio::test]
async fn nobody_there_is_told_within_the_deadline() {
    // Held for as long as the test runs, and nobody listens.
    let port = TcpSocket::new_v4().unwrap();
    port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", port.local_addr().unwrap());
    let config = ProducerConfig {
        deadline: Duration::from_secs(2),
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&url, Credential::fixed("tok"), config).unwrap();
    let begun = Instant::now();
    let fates = producer.emit_batch(vec![named("a"), named("b")]).await;
    // Far from the patience of anything else.
    assert!(begun.elapsed() < Duration::from_secs(20));
    for fate in fates {
        let refusal = fate.unwrap_err();
        assert_eq!(
            (refusal.code(), refusal.reason.as_str()),
            (Code::Unavailable, "")
        );
    }
}

trait CodeOf {
    fn code(&self) -> Code;
}

impl CodeOf for Refusal {
    fn code(&self) -> Code {
        Code::from_i32(self.code)
    }
}
