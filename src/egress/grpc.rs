//! `EventSubscriber`: the stream of one user over gRPC.

use std::{pin::Pin, sync::Arc};

use bytes::{BufMut, Bytes};
use futures_util::{Stream, StreamExt, stream};
use prost::Message;
use tonic::{
    Request, Response, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::{
    Egress,
    asked::Asked,
    control::{Closing, Control},
    frame::Encoding,
    pump,
    session::{Session, Step},
};
use crate::{
    calls::admitted,
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

/// Serves `EventSubscriber`.
pub struct Subscriber {
    egress: Arc<Egress>,
}

pub(super) fn server(egress: Arc<Egress>) -> EventSubscriberServer<Subscriber> {
    EventSubscriberServer::new(Subscriber { egress })
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
        let steps = pump::steps(self.egress.clone(), session, None);
        Ok(Response::new(Box::pin(responses(steps))))
    }
}

impl Subscriber {
    async fn open(&self, request: Request<SubscribeRequest>) -> Result<Session, Refusal> {
        let egress = &self.egress;
        egress.check_serving()?;
        let principal = admitted(&request)?;
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

/// The batches one after the other, then the end: `closing` and a status that says the same.
fn responses(
    steps: impl Stream<Item = Step> + Send,
) -> impl Stream<Item = Result<Bytes, Status>> + Send {
    steps.flat_map(|step| match step {
        Step::Send(frames) => stream::iter(frames).map(Ok).left_stream(),
        Step::Close(closing) => stream::iter(last(closing)).right_stream(),
    })
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
        let closing = Closing {
            reason: Reason::Draining,
            reconnect_after: Some(Duration::from_millis(1500)),
        };
        let steps = stream::iter([
            Step::Send(vec![Bytes::from("a"), Bytes::from("b")]),
            Step::Close(closing),
        ]);
        let mut got: Vec<_> = responses(steps).collect().await;
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
}
