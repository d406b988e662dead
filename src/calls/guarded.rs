//! Services whose requests are small.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, Request, Response, header::CONTENT_TYPE, header::TE};
use http_body_util::Full;
use tokio::time::Instant;
use tonic::{
    body::Body,
    codegen::{BoxFuture, Service},
    server::NamedService,
};

use super::{Calls, NotArrived, body};
use crate::{
    access::{Principal, Scope},
    reason::{Reason, Refusal, to_status},
};

/// The largest request of a service other than the emitter, in bytes: ids and filters are short.
pub const REQUEST_BYTES: usize = 16 * 1024;

/// The largest request of a service that needs no credential, in bytes: it names a service, a file or a symbol.
const OPEN_REQUEST_BYTES: usize = 1024;

/// The headers of such a request that are kept while its body arrives.
const OPEN_HEADERS: [HeaderName; 4] = [
    CONTENT_TYPE,
    TE,
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("grpc-encoding"),
];

/// Who may call a service, and the form of its requests.
#[derive(Clone, Copy)]
enum Rule {
    /// A credential with one of these scopes; one message.
    Scopes(&'static [Scope]),
    /// Anyone; one message.
    Open,
    /// Anyone; a stream of messages.
    OpenStream,
}

/// A service behind its admission. It finds its `Arc<Principal>` in the request's extensions.
#[derive(Clone)]
pub struct Guarded<S> {
    service: S,
    calls: Arc<Calls>,
    rule: Rule,
    /// Counts a refusal.
    counted: fn(&Calls, Reason),
}

impl Calls {
    /// `service`, for credentials that have one of `scopes`.
    pub fn guard<S>(self: &Arc<Self>, service: S, scopes: &'static [Scope]) -> Guarded<S> {
        self.guarded(service, Rule::Scopes(scopes))
    }

    /// The same; a refusal counts as a reader that is refused.
    pub fn guard_readers<S>(self: &Arc<Self>, service: S, scopes: &'static [Scope]) -> Guarded<S> {
        Guarded {
            counted: |calls, reason| calls.metrics.closed(Some(reason)),
            ..self.guard(service, scopes)
        }
    }

    /// `service`, for everyone.
    pub fn open<S>(self: &Arc<Self>, service: S) -> Guarded<S> {
        self.guarded(service, Rule::Open)
    }

    /// `service`, whose requests are streams, for everyone.
    pub fn open_stream<S>(self: &Arc<Self>, service: S) -> Guarded<S> {
        self.guarded(service, Rule::OpenStream)
    }

    fn guarded<S>(self: &Arc<Self>, service: S, rule: Rule) -> Guarded<S> {
        Guarded {
            service,
            calls: self.clone(),
            rule,
            counted: |_, _| {},
        }
    }

    /// The principal of a call that needs one of `scopes`.
    fn admit(&self, headers: &HeaderMap, scopes: &[Scope]) -> Result<Arc<Principal>, Refusal> {
        let principal = self.authenticator.admit(headers)?;
        let has_one = scopes.iter().any(|scope| principal.scopes.contains(scope));
        if let (false, Some(first)) = (has_one, scopes.first()) {
            principal.require(*first)?;
        }
        Ok(principal)
    }

    /// The request with its body collected.
    async fn taken_in(&self, request: Request<Body>, rule: Rule) -> Result<Request<Body>, Refusal> {
        let (mut parts, body) = request.into_parts();
        let body = match rule {
            Rule::Scopes(scopes) => {
                let principal = self.admit(&parts.headers, scopes)?;
                let arrived = self.body(&principal, body, REQUEST_BYTES, None).await;
                let arrived = arrived.map_err(|problem| problem.refusal())?;
                parts.extensions.insert(principal);
                Body::new(Full::new(arrived.bytes))
            }
            Rule::Open => {
                keep_open_headers(&mut parts.headers);
                let collected = body::collect(body, OPEN_REQUEST_BYTES, |_| Ok(()));
                let bytes = tokio::time::timeout(self.config.body, collected).await;
                let bytes = bytes.unwrap_or(Err(NotArrived::Overdue));
                Body::new(Full::new(bytes.map_err(|problem| problem.refusal())?))
            }
            Rule::OpenStream => {
                keep_open_headers(&mut parts.headers);
                let until = Instant::now() + self.config.body;
                let mut messages = body::WholeMessages::new(body, OPEN_REQUEST_BYTES, until);
                let first = messages.first().await;
                first.map_err(|problem| problem.refusal())?;
                Body::new(messages)
            }
        };
        Ok(Request::from_parts(parts, body))
    }
}

/// The principal that a guarded service was called by.
///
/// # Errors
/// `UNAUTHENTICATED` for a call that passed no guard.
pub fn admitted<T>(request: &tonic::Request<T>) -> Result<Arc<Principal>, Refusal> {
    let principal = request.extensions().get::<Arc<Principal>>().cloned();
    principal.ok_or_else(|| Refusal::new(Reason::Unauthenticated, "there is no credential"))
}

/// Removes what a peer without a credential could make the service hold for as long as the body arrives.
fn keep_open_headers(headers: &mut HeaderMap) {
    let all = std::mem::take(headers);
    for name in OPEN_HEADERS {
        if let Some(value) = all.get(&name) {
            headers.insert(name, value.clone());
        }
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The services that are guarded are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut guarded = self.clone();
        Box::pin(async move {
            let calls = guarded.calls.clone();
            match calls.taken_in(request, guarded.rule).await {
                Ok(request) => guarded.service.call(request).await,
                Err(refusal) => {
                    (guarded.counted)(&calls, refusal.reason);
                    Ok(to_status(&refusal).into_http())
                }
            }
        })
    }
}
