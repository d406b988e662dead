//! Readers that come back by position however often they are cut off, and note everything that they hear.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use emitter::{
    client::{Item, Reader, ReaderConfig, Start},
    proto::v1::{
        GapReason, Position, RecordedEvent, StartFrom, SubscribeRequest, event::Payload,
        event_subscriber_client::EventSubscriberClient, subscribe_request, subscribe_response,
    },
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status, Streaming, transport::Endpoint};

use super::{
    server::{credential, token},
    tools::PATIENCE,
};

/// An event as a reader got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) epoch: String,
    pub(crate) offset: u64,
    pub(crate) event_id: String,
    pub(crate) user: String,
    pub(crate) run: String,
    pub(crate) run_sequence: u64,
    /// Whether it ends its run.
    pub(crate) ends: bool,
}

/// What a reader notes.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    Event(Seen),
    /// Why, and where the reader stands from here on.
    Gap(String, Position),
    /// Everything was sent.
    CaughtUp,
    /// The connection ended, and why.
    Ended(String),
    /// The service will not have this reader.
    Refused(String),
}

/// A reader at work on one user's stream, from the oldest event on.
pub(crate) struct Reading {
    pub(crate) name: String,
    pub(crate) user: String,
    notes: Arc<Notes>,
    task: JoinHandle<()>,
}

/// What a reader heard, and which events were among it.
#[derive(Default)]
struct Notes(Mutex<(Vec<Heard>, HashSet<String>)>);

impl Notes {
    fn push(&self, heard: Heard) {
        let mut notes = self.0.lock().unwrap();
        if let Heard::Event(seen) = &heard {
            notes.1.insert(seen.event_id.clone());
        }
        notes.0.push(heard);
    }
}

impl Reading {
    /// Over gRPC, at one of `nodes` at random after each end. Nothing is dropped: all that was sent is noted.
    pub(crate) fn grpc(user: &str, nodes: &[String], seed: u64) -> Self {
        let mut cursor = Cursor {
            user: user.to_owned(),
            nodes: nodes.to_vec(),
            rng: StdRng::seed_from_u64(seed),
            after: None,
        };
        Self::begin(format!("{user} over gRPC"), user, async move |notes| {
            loop {
                cursor.read(&notes).await;
                let pause = cursor.rng.random_range(50..500);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        })
    }

    /// Over WebSocket with the crate's own client, which drops what it has seen.
    pub(crate) fn websocket(user: &str, node: &str) -> Self {
        let config = ReaderConfig {
            start: Start::Oldest,
            join: Some(false),
            ..ReaderConfig::default()
        };
        let mut reader = Reader::new(node, credential(user, "subscribe"), config).unwrap();
        Self::begin(format!("{user} over WebSocket"), user, async move |notes| {
            loop {
                match reader.next().await {
                    Ok(item) => notes.extend(item),
                    Err(stopped) => {
                        notes.push(Heard::Refused(stopped.to_string()));
                        return;
                    }
                }
            }
        })
    }

    fn begin<F>(name: String, user: &str, read: impl FnOnce(Arc<Notes>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let notes = Arc::<Notes>::default();
        let task = tokio::spawn(read(notes.clone()));
        Self {
            name,
            user: user.to_owned(),
            notes,
            task,
        }
    }

    /// Those of `ids` that have not come.
    pub(crate) fn missing(&self, ids: &[String]) -> Vec<String> {
        let notes = self.notes.0.lock().unwrap();
        let missing = |id: &&String| !notes.1.contains(*id);
        ids.iter().filter(missing).cloned().collect()
    }

    /// What it heard so far.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.notes.0.lock().unwrap().0.clone()
    }

    /// How many gaps it heard of.
    pub(crate) fn gaps(&self) -> usize {
        let notes = self.notes.0.lock().unwrap();
        let is_gap = |heard: &&Heard| matches!(heard, Heard::Gap(..));
        notes.0.iter().filter(is_gap).count()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Notes {
    /// Takes in what the crate's own client says.
    fn extend(&self, item: Item) {
        match item {
            Item::Event(frame) => {
                let fields = frame.fields();
                let text = |name: &str| fields.text(name);
                self.push(Heard::Event(Seen {
                    epoch: text("epoch"),
                    offset: fields.number("offset").unwrap_or_default(),
                    event_id: text("event_id"),
                    user: text("user_id"),
                    run: text("run_id"),
                    run_sequence: fields.number("run_sequence").unwrap_or_default(),
                    ends: matches!(
                        frame.kind(),
                        "agent_completed" | "agent_failed" | "agent_cancelled"
                    ),
                }));
            }
            Item::Gap(frame) => {
                let next = frame.next().expect("a gap ends somewhere");
                let next = Position {
                    epoch: next.epoch.to_string(),
                    offset: next.offset.0,
                };
                let reason = frame.reason().unwrap_or_default();
                self.push(Heard::Gap(reason.to_owned(), next));
            }
            Item::CaughtUp(_) => self.push(Heard::CaughtUp),
            Item::Disconnected { reason, .. } => self.push(Heard::Ended(reason)),
            Item::Established(_) | Item::Notice(_) => {}
        }
    }
}

struct Cursor {
    user: String,
    nodes: Vec<String>,
    rng: StdRng,
    after: Option<Position>,
}

impl Cursor {
    /// Reads until the stream ends.
    async fn read(&mut self, notes: &Notes) {
        let node = &self.nodes[self.rng.random_range(0..self.nodes.len())];
        let status = match subscribe(node, &self.user, self.after.clone()).await {
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(message)) => {
                        if let Some(item) = message.item {
                            self.take(item, notes);
                        }
                    }
                    Ok(None) => break Status::unavailable("the stream ended"),
                    Err(status) => break status,
                }
            },
            Err(status) => status,
        };
        let text = format!("{:?}: {}", status.code(), status.message());
        if is_passing(&status) {
            notes.push(Heard::Ended(text));
        } else {
            notes.push(Heard::Refused(text));
        }
    }

    fn take(&mut self, item: subscribe_response::Item, notes: &Notes) {
        use subscribe_response::Item;
        match item {
            Item::Event(event) => {
                self.after.clone_from(&event.position);
                notes.push(Heard::Event(seen(event)));
            }
            Item::Gap(gap) => {
                let reason = gap.reason().as_str_name();
                let reason = reason.trim_start_matches("GAP_REASON_").to_lowercase();
                let next = gap.next.clone().expect("a gap ends somewhere");
                self.after = Some(next.clone());
                notes.push(Heard::Gap(reason, next));
            }
            Item::CaughtUp(caught_up) => {
                self.after = caught_up.position;
                notes.push(Heard::CaughtUp);
            }
            Item::Established(established) => {
                if self.after.is_none() {
                    self.after = established.position;
                }
            }
            Item::Closing(_) => {}
        }
    }
}

/// Whether a reader comes back after that: the connection ended, or the service is away.
pub(crate) fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::DeadlineExceeded
    )
}

/// The reason of a gap that a changed epoch is told with.
pub(crate) fn epoch_changed() -> String {
    let name = GapReason::EpochChanged.as_str_name();
    name.trim_start_matches("GAP_REASON_").to_lowercase()
}

/// A stream of `user`, after a position or from the oldest event.
pub(crate) async fn subscribe(
    node: &str,
    user: &str,
    after: Option<Position>,
) -> Result<Streaming<emitter::proto::v1::SubscribeResponse>, Status> {
    let endpoint = Endpoint::from_shared(node.to_owned())
        .unwrap()
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5));
    let channel = endpoint.connect().await;
    let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut client = EventSubscriberClient::new(channel);
    let start = match after {
        Some(position) => subscribe_request::Start::After(position),
        None => subscribe_request::Start::From(StartFrom::Oldest.into()),
    };
    let mut request = Request::new(SubscribeRequest {
        start: Some(start),
        join: Some(false),
        ..SubscribeRequest::default()
    });
    let bearer = format!("Bearer {}", token(user, "subscribe"));
    let bearer = bearer.parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let answer = tokio::time::timeout(Duration::from_secs(10), client.subscribe(request)).await;
    let answer = answer.map_err(|_| Status::unavailable("no answer within 10 s"))?;
    Ok(answer?.into_inner())
}

/// Everything that is retained of `user`, read anew; again from its beginning where that is cut off.
pub(crate) async fn replay(node: &str, user: &str) -> Vec<Seen> {
    let mut ends = Vec::new();
    let read = async {
        loop {
            match replay_once(node, user).await {
                Ok(all) => return all,
                Err(status) if is_passing(&status) => ends.push(status.to_string()),
                Err(status) => panic!("replay of {user}: {status}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let read = tokio::time::timeout(PATIENCE, read).await;
    read.unwrap_or_else(|_| panic!("no replay of {user} within {PATIENCE:?}: {ends:?}"))
}

/// The same over one connection.
async fn replay_once(node: &str, user: &str) -> Result<Vec<Seen>, Status> {
    use subscribe_response::Item;
    let mut stream = subscribe(node, user, None).await?;
    let mut all = Vec::new();
    while let Some(message) = stream.message().await? {
        match message.item {
            Some(Item::Event(event)) => all.push(seen(event)),
            Some(Item::CaughtUp(_)) => return Ok(all),
            Some(Item::Gap(gap)) => panic!("a gap from the oldest on: {gap:?}"),
            _ => {}
        }
    }
    Err(Status::unavailable("the stream ended"))
}

fn seen(recorded: RecordedEvent) -> Seen {
    let position = recorded.position.unwrap_or_default();
    let event = recorded.event.unwrap_or_default();
    Seen {
        epoch: position.epoch,
        offset: position.offset,
        user: event.user_id,
        run: event.run_id,
        run_sequence: recorded.run_sequence,
        ends: matches!(
            event.payload,
            Some(Payload::AgentCompleted(_) | Payload::AgentFailed(_) | Payload::AgentCancelled(_))
        ),
        event_id: event.event_id,
    }
}
