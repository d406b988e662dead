//! The building blocks with nothing on them.

use std::net::SocketAddr;

use emitter::proto::v1::{
    EmitBatchRequest, EmitBatchResponse, EmitRequest, EmitResponse, EmitResult, Event, Position,
    Receipt,
    emit_result::Outcome,
    event_emitter_server::{EventEmitter, EventEmitterServer},
};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast,
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_tungstenite::tungstenite::Message;
use tonic::{Request, Response, Status, transport::Server};

/// Answers calls and writes to sockets until the process is ended.
pub(crate) async fn serve() {
    let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses: [SocketAddr; 2] = [grpc.local_addr().unwrap(), http.local_addr().unwrap()];
    println!(r#"{{"grpc":"{}","http":"{}"}}"#, addresses[0], addresses[1]);
    let service = EventEmitterServer::new(Handler).max_decoding_message_size(16 * 1024 * 1024);
    let incoming = TcpListenerStream::new(grpc);
    let calls = Server::builder()
        .add_service(service)
        .serve_with_incoming(incoming);
    tokio::join!(async { calls.await.unwrap() }, sockets(http));
}

struct Handler;

#[tonic::async_trait]
impl EventEmitter for Handler {
    async fn emit(&self, request: Request<EmitRequest>) -> Result<Response<EmitResponse>, Status> {
        let receipt = request.into_inner().event.map(receipt);
        Ok(Response::new(EmitResponse { receipt }))
    }

    async fn emit_batch(
        &self,
        request: Request<EmitBatchRequest>,
    ) -> Result<Response<EmitBatchResponse>, Status> {
        let results = request
            .into_inner()
            .events
            .into_iter()
            .map(|event| EmitResult {
                outcome: Some(Outcome::Receipt(receipt(event))),
            });
        Ok(Response::new(EmitBatchResponse {
            results: results.collect(),
            refused_count: 0,
            ..Default::default()
        }))
    }
}

/// A receipt with all that a real one has.
fn receipt(event: Event) -> Receipt {
    Receipt {
        event_id: event.event_id,
        position: Some(Position {
            epoch: "00000000000000ab".into(),
            offset: 1,
        }),
        run_sequence: 1,
        recorded_at: Some(prost_types::Timestamp::default()),
        duplicate: false,
        ..Default::default()
    }
}

/// A message from any socket has every other one be sent it, as often as its first three digits say.
async fn sockets(listener: TcpListener) {
    let (said, _) = broadcast::channel(1024);
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tokio::spawn(socket(tcp, said.clone()));
    }
}

async fn socket(tcp: TcpStream, said: broadcast::Sender<(u64, Message)>) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(tcp).await else {
        return;
    };
    let mut hear = said.subscribe();
    let mut speaks = false;
    loop {
        tokio::select! {
            heard = hear.recv() => {
                let (times, message) = heard.unwrap();
                if speaks {
                    continue;
                }
                for _ in 0..times {
                    socket.feed(message.clone()).await.unwrap();
                }
                socket.flush().await.unwrap();
            }
            message = socket.next() => {
                let Some(Ok(Message::Text(text))) = message else {
                    return;
                };
                speaks = true;
                let (times, text) = text.split_at(3);
                let _nobody_hears = said.send((times.parse().unwrap(), Message::text(text)));
            }
        }
    }
}
