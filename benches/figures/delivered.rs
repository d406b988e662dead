//! What a delivered event costs: what the server uses with readers, less what it uses without them.

use emitter::{
    access::Scope,
    client::{Credential, Producer, ProducerConfig},
    proto::v1::{AgentStarted, AgentThinking, Event, event::Payload},
};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

use super::{
    Pair,
    measured::{Measured, token},
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How many sockets read the same events.
const READERS: usize = 16;

/// How many events make a turn, one at a time and in batches.
const SINGLE: usize = 2_000;
const GROUPED: usize = 20_000;

/// The same events to as many sockets of both servers, in turn.
pub(crate) struct Delivering<'a> {
    emitter: &'a Measured,
    bare: &'a Measured,
    per_write: usize,
    producer: Producer,
    ours: Vec<Socket>,
    theirs: Vec<Socket>,
    speaker: Socket,
    /// What the bare server sends: a frame as ours sends it.
    frame: String,
    /// Who is read, and who is not.
    users: [String; 2],
}

impl<'a> Delivering<'a> {
    pub(crate) async fn new(emitter: &'a Measured, bare: &'a Measured, per_write: usize) -> Self {
        let url = format!("http://{}", emitter.address("grpc"));
        let credential = Credential::fixed(&token("agents", Scope::Emit));
        let producer = Producer::new(&url, credential, ProducerConfig::default()).unwrap();
        let users = ["read", "unread"].map(|user| format!("{user}-{per_write}"));
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..READERS {
            let address = format!("ws://{}/v1/stream", emitter.address("http"));
            let mut socket = connect(&address, &token(&users[0], Scope::Subscribe)).await;
            // The first frame says that the stream begins.
            text(&mut socket).await;
            ours.push(socket);
            let address = format!("ws://{}/", bare.address("http"));
            theirs.push(connect(&address, "none").await);
        }
        let address = format!("ws://{}/", bare.address("http"));
        let speaker = connect(&address, "none").await;
        let mut delivering = Self {
            emitter,
            bare,
            per_write,
            producer,
            ours,
            theirs,
            speaker,
            frame: String::new(),
            users,
        };
        for user in 0..2 {
            let start = Payload::AgentStarted(AgentStarted::default());
            delivering.emit(user, start, 1).await;
            delivering.emit(user, thinking(), 1).await;
        }
        for socket in &mut delivering.ours {
            text(socket).await;
            delivering.frame = text(socket).await;
        }
        delivering
    }

    async fn emit(&self, user: usize, payload: Payload, count: usize) {
        let event = Event {
            user_id: self.users[user].clone(),
            run_id: format!("run-{}", self.users[user]),
            agent_name: "researcher".into(),
            payload: Some(payload),
            ..Event::default()
        };
        let fates = self.producer.emit_batch(vec![event; count]).await;
        let refused = fates.into_iter().find_map(Result::err);
        assert!(refused.is_none(), "{refused:?}");
    }

    fn turns(&self) -> usize {
        if self.per_write == 1 {
            SINGLE
        } else {
            GROUPED / self.per_write
        }
    }

    /// The CPU seconds of the emitter for a turn, with and without readers.
    async fn our_turn(&mut self) -> (f64, f64) {
        let before = self.emitter.cpu_seconds();
        for _ in 0..self.turns() {
            self.emit(0, thinking(), self.per_write).await;
            all(&mut self.ours, self.per_write).await;
        }
        let between = self.emitter.cpu_seconds();
        for _ in 0..self.turns() {
            self.emit(1, thinking(), self.per_write).await;
        }
        (between - before, self.emitter.cpu_seconds() - between)
    }

    async fn their_turn(&mut self) -> f64 {
        let before = self.bare.cpu_seconds();
        let said = format!("{:03}{}", self.per_write, self.frame);
        for _ in 0..self.turns() {
            self.speaker
                .send(Message::text(said.clone()))
                .await
                .unwrap();
            all(&mut self.theirs, self.per_write).await;
        }
        self.bare.cpu_seconds() - before
    }
}

impl Pair for Delivering<'_> {
    async fn measure(&mut self) -> (f64, f64) {
        let (with, without) = self.our_turn().await;
        let theirs = self.their_turn().await;
        let delivered = (self.turns() * self.per_write * READERS) as f64;
        ((with - without) * 1e6 / delivered, theirs * 1e6 / delivered)
    }
}

fn thinking() -> Payload {
    Payload::AgentThinking(AgentThinking {
        reasoning: "Comparing the three candidates by price and delivery date.".into(),
        step_number: Some(3),
        ..AgentThinking::default()
    })
}

async fn connect(address: &str, token: &str) -> Socket {
    let mut request = address.into_client_request().unwrap();
    let bearer = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    request.headers_mut().insert("authorization", bearer);
    connect_async(request).await.unwrap().0
}

async fn all(sockets: &mut [Socket], count: usize) {
    for socket in sockets {
        for _ in 0..count {
            text(socket).await;
        }
    }
}

/// The next frame that is an event, or the first of all.
async fn text(socket: &mut Socket) -> String {
    loop {
        if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
            let control = text.contains("\"type\":\"connection_");
            if !control || text.contains("connection_established") {
                return text.as_str().to_owned();
            }
        }
    }
}
