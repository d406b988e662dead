//! `EventSubscriber`: the stream of one user over gRPC.

use std::{pin::Pin, sync::Arc};

use bytes::{BufMut, Bytes};
use futures_util::{Stream, StreamExt, stream};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::{
    Egress,
    asked::Asked,
    control::{Closing, Control},
    frame::Encoding,
    session::{Session, Step},
};
use crate::{
    event::UserId,
    proto::v1::SubscribeRequest,
    reason::{self, Reason, Refusal},
};

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated from proto/, where the documentation stands"
)]
mod generated {
    include!(concat!(
        env!("OUT_DIR"),
        "/subscriber/emitter.v1.EventSubscriber.rs"
    ));
}

pub use generated::event_subscriber_server::{EventSubscriber, EventSubscriberServer};

/// The largest request, in bytes: its ids and types are short.
const REQUEST_BYTES: usize = 64 * 1024;

/// Serves `EventSubscriber`.
pub struct Subscriber {
    egress: Arc<Egress>,
}

pub(super) fn server(egress: Arc<Egress>) -> EventSubscriberServer<Subscriber> {
    EventSubscriberServer::new(Subscriber { egress }).max_decoding_message_size(REQUEST_BYTES)
}

#[tonic::async_trait]
impl EventSubscriber for Subscriber {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let session = self.open(request).await.map_err(|refusal| {
            self.egress.metrics.closed(Some(refusal.reason));
            reason::to_status(&refusal)
        })?;
        // One batch waits here and one is being sent: the rest stays in the log until there is room.
        let (batches, sent) = mpsc::channel(1);
        let (last, end) = oneshot::channel();
        tokio::spawn(run(self.egress.clone(), session, batches, last));
        Ok(Response::new(Box::pin(responses(sent, end))))
    }
}

impl Subscriber {
    async fn open(&self, request: Request<SubscribeRequest>) -> Result<Session, Refusal> {
        let egress = &self.egress;
        egress.check_serving()?;
        let principal = egress.authenticator.admit(request.metadata().as_ref())?;
        let request = request.into_inner();
        let user = match request.user_id.as_str() {
            "" => None,
            text => Some(UserId::new(text).map_err(|error| {
                Refusal::invalid_field(Reason::InvalidRequest, "user_id", error.to_string())
            })?),
        };
        let stream = principal.may_read(user)?;
        let asked = Asked::in_request(request)?;
        Session::open(egress.clone(), Encoding::Proto, principal, stream, asked).await
    }
}

/// Carries `session` until it or the client ends.
async fn run(
    egress: Arc<Egress>,
    mut session: Session,
    batches: mpsc::Sender<Vec<Bytes>>,
    last: oneshot::Sender<Closing>,
) {
    let ended = pump(&egress, &mut session, &batches).await;
    // The reader is out before its client is told, so that it does not count against its own return.
    drop(session);
    egress.metrics.closed(ended.map(|closing| closing.reason));
    if let Some(closing) = ended {
        let _client_is_gone = last.send(closing);
    }
}

/// Hands batches over as fast as they are taken. `None`: the client went away.
async fn pump(
    egress: &Egress,
    session: &mut Session,
    batches: &mpsc::Sender<Vec<Bytes>>,
) -> Option<Closing> {
    loop {
        let step = tokio::select! {
            biased;
            () = batches.closed() => return None,
            step = session.next() => step,
        };
        let frames = match step {
            Step::Send(frames) => frames,
            Step::Close(closing) => return Some(closing),
        };
        let sent = tokio::select! {
            sent = batches.send_timeout(frames, egress.config.write_stall) => sent,
            closing = session.ended() => return Some(closing),
        };
        match sent {
            Ok(()) => {}
            Err(mpsc::error::SendTimeoutError::Closed(_)) => return None,
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                return Some(egress.closing(Reason::TooSlow));
            }
        }
    }
}

/// The batches one after the other, then the end: `closing` and a status that says the same.
fn responses(
    batches: mpsc::Receiver<Vec<Bytes>>,
    end: oneshot::Receiver<Closing>,
) -> impl Stream<Item = Result<Bytes, Status>> + Send {
    let frames = ReceiverStream::new(batches).flat_map(|batch| stream::iter(batch).map(Ok));
    let end =
        stream::once(end).flat_map(|closing| stream::iter(closing.into_iter().flat_map(last)));
    frames.chain(end)
}

fn last(closing: Closing) -> impl Iterator<Item = Result<Bytes, Status>> {
    let frame = Control::Closing(closing).encode(Encoding::Proto);
    let refusal = Refusal {
        retry_after: closing.reconnect_after,
        ..Refusal::new(closing.reason, "the server ended the stream")
    };
    frame
        .map(Ok)
        .into_iter()
        .chain([Err(reason::to_status(&refusal))])
}

/// Sends responses that are encoded already, and decodes requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct EncodedCodec;

impl Codec for EncodedCodec {
    type Encode = Bytes;
    type Decode = SubscribeRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for EncodedCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for EncodedCodec {
    type Item = SubscribeRequest;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<SubscribeRequest>, Status> {
        SubscribeRequest::decode(from).map(Some).map_err(|error| {
            let refusal = Refusal::new(Reason::InvalidRequest, error.to_string());
            reason::to_status(&refusal)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;
    use crate::proto::v1::{self, subscribe_response::Item};

    #[tokio::test]
    async fn a_stream_ends_with_closing_and_the_same_status() {
        let (batches, sent) = mpsc::channel(1);
        let (last, end) = oneshot::channel();
        batches
            .send(vec![Bytes::from("a"), Bytes::from("b")])
            .await
            .unwrap();
        drop(batches);
        let closing = Closing {
            reason: Reason::Draining,
            reconnect_after: Some(Duration::from_millis(1500)),
        };
        last.send(closing).unwrap();
        let mut got: Vec<_> = responses(sent, end).collect().await;
        let status = got.pop().unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "DRAINING");
        let retry = details.retry_info().unwrap().retry_delay;
        assert_eq!(retry, Some(Duration::from_millis(1500)));
        let closing = v1::SubscribeResponse::decode(got.pop().unwrap().unwrap()).unwrap();
        assert!(
            matches!(closing.item, Some(Item::Closing(_))),
            "{closing:?}"
        );
        let frames: Vec<_> = got.into_iter().map(Result::unwrap).collect();
        assert_eq!(frames, ["a", "b"]);
    }

    #[tokio::test]
    async fn a_stream_whose_client_left_just_ends() {
        let (batches, sent) = mpsc::channel::<Vec<Bytes>>(1);
        let (last, end) = oneshot::channel::<Closing>();
        drop((batches, last));
        assert_eq!(responses(sent, end).collect::<Vec<_>>().await.len(), 0);
    }
}
