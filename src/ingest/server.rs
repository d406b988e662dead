//! The gRPC surface. It stands in for the generated server, which would read and decode a whole batch before anyone
//! can look at its size or at the caller.

use std::{convert::Infallible, pin::pin, sync::Arc};

use bytes::Bytes;
use http::request::Parts;
use http_body_util::Full;
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codegen::{Body as HttpBody, BoxFuture, Context, Poll, Service, StdError},
    server::{Grpc, NamedService},
};
use tower::service_fn;

use crate::{
    calls::{Calls, Deadline, NotArrived},
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
pub struct EmitterServer {
    service: Arc<EmitterService>,
    calls: Arc<Calls>,
}

/// The shape of a method's request.
#[derive(Clone, Copy)]
struct Shape {
    /// The field that holds the events.
    field: &'static str,
    events: usize,
    bytes: usize,
}

impl EmitterServer {
    pub(super) fn new(service: EmitterService, calls: Arc<Calls>) -> Self {
        Self {
            service: Arc::new(service),
            calls,
        }
    }

    async fn route<B>(self, request: http::Request<B>) -> http::Response<Body>
    where
        B: HttpBody<Error: Into<StdError> + Send> + Send + 'static,
    {
        let config = self.service.config();
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
        let service = Arc::clone(&self.service);
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
        let (parts, body) = request.into_parts();
        let taken_in = self.take_in(&parts, body, shape, deadline).await;
        let (caller, bytes, _permit) = match taken_in {
            Ok(taken_in) => taken_in,
            Err(refusal) => return self.refuse(refusal).into_http(),
        };
        let mut handle = Some((handle, caller));
        let method = service_fn(|request: Request<Parsed>| {
            let handle = handle.take();
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
        let request = http::Request::from_parts(parts, Full::new(bytes));
        let mut response = pin!(grpc.unary(method, request));
        tokio::select! {
            biased;
            response = &mut response => self.explained(response),
            () = Deadline::passed(deadline) => {
                let message = "the deadline passed while the events were being stored";
                self.refuse(Refusal::new(Reason::OutcomeUnknown, message)).into_http()
            }
        }
    }

    /// Who calls, the whole body, and a permit to go on.
    async fn take_in<B>(
        &self,
        parts: &Parts,
        body: B,
        shape: Shape,
        deadline: Option<Deadline>,
    ) -> Result<(Caller, Bytes, OwnedSemaphorePermit), Refusal>
    where
        B: HttpBody<Error: Into<StdError> + Send> + Send + 'static,
    {
        let caller = self.service.admit(&parts.headers, deadline)?;
        let limit = shape.bytes + SLACK;
        let arrived = self
            .calls
            .body(caller.principal(), body, limit, deadline)
            .await
            .map_err(|problem| match problem {
                NotArrived::TooLarge(_) => {
                    let rule = too_large(shape.bytes);
                    Refusal::invalid_field(Reason::InvalidEvent, shape.field, rule)
                }
                problem => problem.refusal(),
            })?;
        // The charge for the body is held until there is a permit: from then on, bodies are bounded by the permits.
        let permit = self.calls.permit(deadline).await?;
        Ok((caller, arrived.bytes.clone(), permit))
    }

    /// The status of a call that is refused as a whole.
    fn refuse(&self, refusal: Refusal) -> Status {
        to_status(&self.service.counted(refusal))
    }

    /// `response`, unless tonic itself refused the message: its statuses lack a reason.
    fn explained(&self, response: http::Response<Body>) -> http::Response<Body> {
        let unexplained = response
            .extensions()
            .get::<Status>()
            .filter(|status| status.details().is_empty() && status.code() == Code::Internal);
        match unexplained {
            Some(status) => {
                let refusal = Refusal::new(Reason::InvalidRequest, status.message());
                self.refuse(refusal).into_http()
            }
            None => response,
        }
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
