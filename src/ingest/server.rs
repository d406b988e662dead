//! The gRPC surface. It stands in for the generated server, which would read and decode a whole batch before anyone
//! can look at its size or at the caller.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use prost::Message;
use tokio::{
    sync::oneshot,
    time::{self, Instant},
};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codegen::{Body as HttpBody, BoxFuture, Context, Poll, Service, StdError},
    server::{Grpc, NamedService},
};
use tower::service_fn;

use crate::{
    proto::v1::event_emitter_server::SERVICE_NAME,
    reason::{Reason, Refusal, to_status},
};

use super::{
    EmitterService,
    service::Caller,
    validate::too_large,
    wire::{Parsed, Split, SplitCodec},
};

/// What tonic lets through beyond our own bounds, so that what is a little too large is told more exactly.
const SLACK: usize = 64 * 1024;

/// `emitter.v1.EventEmitter` as a tonic server takes it. Clones share the service.
#[derive(Clone)]
pub struct EmitterServer(Arc<EmitterService>);

/// The shape of a method's request.
#[derive(Clone, Copy)]
struct Shape {
    /// The field that holds the events.
    field: &'static str,
    events: usize,
    bytes: usize,
}

impl EmitterServer {
    pub(super) fn new(service: EmitterService) -> Self {
        Self(Arc::new(service))
    }

    async fn route<B>(self, request: http::Request<B>) -> http::Response<Body>
    where
        B: HttpBody<Error: Into<StdError> + Send> + Send + 'static,
    {
        let config = self.0.config();
        let one = Shape {
            field: "event",
            events: 1,
            // An end of a run or of a tool call that is too large is cut, not refused.
            bytes: config.batch_bytes,
        };
        let batch = Shape {
            field: "events",
            events: config.batch_events,
            bytes: config.batch_bytes,
        };
        let service = Arc::clone(&self.0);
        match request.uri().path().rsplit_once('/') {
            Some((_, "Emit")) => {
                self.unary(one, request, move |caller, split| async move {
                    service.emit(&caller, split).await
                })
                .await
            }
            Some((_, "EmitBatch")) => {
                self.unary(batch, request, move |caller, split| async move {
                    service.emit_batch(&caller, split).await
                })
                .await
            }
            _ => Status::unimplemented("there is no such method").into_http(),
        }
    }

    /// Admits a call by its headers, takes in its body, and answers with what `handle` makes of it.
    async fn unary<B, R, F>(
        &self,
        shape: Shape,
        request: http::Request<B>,
        handle: impl FnOnce(Caller, Split) -> F + Send,
    ) -> http::Response<Body>
    where
        B: HttpBody<Error: Into<StdError> + Send> + Send + 'static,
        R: Message + Send + 'static,
        F: Future<Output = Result<R, Refusal>> + Send,
    {
        let deadline = Deadline::of(&request);
        let caller = match self.0.admit(request.headers(), deadline) {
            Ok(caller) => caller,
            Err(refusal) => return self.refuse(refusal).into_http(),
        };
        let (arrived, arrival) = oneshot::channel::<Infallible>();
        let mut handle = Some((handle, caller));
        let mut arrived = Some(arrived);
        let method = service_fn(|request: Request<Parsed>| {
            let handle = handle.take();
            // Dropping it tells that the body is here.
            drop(arrived.take());
            async move {
                let split = request.into_inner().map_err(|malformed| {
                    let refusal = Refusal::new(Reason::InvalidRequest, malformed.to_string());
                    self.refuse(refusal)
                })?;
                // A unary method is called once.
                let Some((handle, caller)) = handle else {
                    return Err(Status::internal("called twice"));
                };
                let answer = handle(caller, split).await;
                answer
                    .map(Response::new)
                    .map_err(|refusal| self.refuse(refusal))
            }
        });
        let mut grpc = Grpc::new(SplitCodec::<R>::new(shape.events))
            .max_decoding_message_size(shape.bytes + SLACK);
        let mut response = pin!(grpc.unary(method, request));
        tokio::select! {
            biased;
            response = &mut response => self.explained(response, shape),
            refusal = self.overdue(arrival, deadline) => self.refuse(refusal).into_http(),
        }
    }

    /// Ready when the call has run out of time, with what that means for its events.
    async fn overdue(
        &self,
        arrival: oneshot::Receiver<Infallible>,
        deadline: Option<Deadline>,
    ) -> Refusal {
        let mut deadline = pin!(async {
            match deadline {
                Some(Deadline(at)) => time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        });
        let late = |message| Refusal::new(Reason::DeadlineExceeded, message);
        tokio::select! {
            biased;
            _arrived = arrival => {}
            () = time::sleep(self.0.config().body) => {
                return late("the body did not arrive in time; not stored");
            }
            () = &mut deadline => return late("the deadline passed; not stored"),
        }
        deadline.await;
        let message = "the deadline passed while the events were being stored";
        Refusal::new(Reason::OutcomeUnknown, message)
    }

    /// The status of a call that is refused as a whole.
    fn refuse(&self, refusal: Refusal) -> Status {
        to_status(&self.0.counted(refusal))
    }

    /// `response`, unless tonic itself refused the message: its statuses lack a reason.
    fn explained(&self, response: http::Response<Body>, shape: Shape) -> http::Response<Body> {
        let unexplained = response
            .extensions()
            .get::<Status>()
            .filter(|status| status.details().is_empty());
        let refusal = match unexplained {
            Some(status) if status.code() == Code::OutOfRange => {
                let rule = too_large(shape.bytes);
                Refusal::invalid_field(Reason::InvalidEvent, shape.field, rule)
            }
            Some(status) if status.code() == Code::Internal => {
                Refusal::new(Reason::InvalidRequest, status.message())
            }
            _ => return response,
        };
        self.refuse(refusal).into_http()
    }
}

impl NamedService for EmitterServer {
    const NAME: &'static str = SERVICE_NAME;
}

impl<B> Service<http::Request<B>> for EmitterServer
where
    B: HttpBody<Error: Into<StdError> + Send> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { Ok(server.route(request).await) })
    }
}

/// By when a call must be answered so that its caller still hears it: a little before the caller stops waiting.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

/// How long an answer may take to get to the caller; less where the caller waits for less than four times that.
const ANSWER_TRAVELS: Duration = Duration::from_millis(10);

impl Deadline {
    /// The deadline that the request was given where it came in, else by its header `grpc-timeout` as of now: up to
    /// eight digits and a unit. One that is malformed counts as absent.
    pub fn of<B>(request: &http::Request<B>) -> Option<Self> {
        if let Some(known) = request.extensions().get() {
            return Some(*known);
        }
        let text = request.headers().get("grpc-timeout")?.to_str().ok()?;
        let timeout = timeout(text)?;
        let waits = timeout - ANSWER_TRAVELS.min(timeout / 4);
        Instant::now().checked_add(waits).map(Self)
    }
}

fn timeout(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| plain)?;
    Some(match &text[digits.len()..] {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_up_to_eight_digits_and_a_unit() {
        for (text, want) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("0S", Some(Duration::ZERO)),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("9n", Some(Duration::from_nanos(9))),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("1SS", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("100000000S", None),
        ] {
            assert_eq!(timeout(text), want, "{text:?}");
        }
    }
}
