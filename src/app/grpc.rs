//! The gRPC port: the services, what describes them, and their health.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::Request,
    middleware::{Next, from_fn, map_response},
    response::Response,
};
use tokio::time;
use tonic::{
    Code, Status,
    server::NamedService,
    service::Routes,
    transport::{self, server::Router},
};
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, health_reporter},
};
use tonic_reflection::pb;
use tonic_reflection::server::{Builder, Error};

use crate::{
    access::Scope,
    calls::{Calls, Deadline},
    config::Limits,
    egress,
    engine::{Condition, Engine},
    ingest::{EmitterServer, EmitterService},
    net::Listener,
    operator::OperatorService,
    proto::{DESCRIPTORS, v1::emitter_operator_server::EmitterOperatorServer},
    reason::{Reason, Refusal, to_status},
    shutdown::{Drain, Phase},
};

/// The gRPC port's services, ready to be served.
pub(super) type Server = Router;

type Subscriber = egress::grpc::EventSubscriberServer<egress::grpc::Subscriber>;

type Operator = EmitterOperatorServer<OperatorService>;

/// The services that have a health of their own; the empty name is the server's as a whole.
const HEALTHY: [&str; 4] = ["", EmitterServer::NAME, Subscriber::NAME, Operator::NAME];

/// How often the engine is asked how it fares.
const LOOK: Duration = Duration::from_secs(1);

/// How often a silent connection is asked whether it lives, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));

/// How many bytes of one call, and of all calls of a connection, a peer may send before they are read. Bodies are read at
/// once, so a larger window would only let a peer without a credential hold more memory.
const WINDOWS: (u32, u32) = (64 * 1024, 256 * 1024);

/// The server for the three services, and what tells its health.
pub(super) async fn server(
    limits: &Limits,
    calls: &Arc<Calls>,
    (ingest, egress, operator): (EmitterService, Subscriber, Operator),
) -> Result<(Server, HealthReporter), Error> {
    let (reporter, health) = health_reporter();
    set_health(&reporter, ServingStatus::Serving).await;
    let reflection = described(pb::v1alpha::FILE_DESCRIPTOR_SET).build_v1()?;
    // Older clients know only this one.
    let reflection_v1alpha = described(pb::v1::FILE_DESCRIPTOR_SET).build_v1alpha()?;
    let mut routes = Routes::builder();
    routes
        .add_service(ingest.into_server(calls.clone()))
        .add_service(calls.guard_readers(egress, &[Scope::Subscribe, Scope::Operate]))
        .add_service(calls.guard(operator, &[Scope::Operate]))
        .add_service(calls.open(health))
        .add_service(calls.open_stream(reflection))
        .add_service(calls.open_stream(reflection_v1alpha));
    let routes = routes.routes().into_axum_router();
    let routes = Routes::from(routes.layer(map_response(explained)).layer(from_fn(timely)));
    let head_bytes = u32::try_from(limits.head_bytes).unwrap_or(u32::MAX);
    let server = transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .http2_max_header_list_size(head_bytes)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_concurrent_streams(limits.grpc_streams)
        .add_routes(routes);
    Ok((server, reporter))
}

/// Answers a call by its deadline, with a reason: what the gRPC library answers a moment later has none. A service that
/// knows more than that the time is over answers by itself, at the same deadline, and comes first.
async fn timely(mut request: Request, next: Next) -> Response {
    let Some(deadline) = Deadline::of(&request) else {
        return next.run(request).await;
    };
    request.extensions_mut().insert(deadline);
    tokio::select! {
        biased;
        response = next.run(request) => response,
        () = time::sleep_until(deadline.0) => {
            let message = "the deadline passed before the call was taken up";
            let refusal = Refusal::new(Reason::DeadlineExceeded, message);
            to_status(&refusal).into_http()
        }
    }
}

/// `response`, with a reason where the gRPC library refused the call by itself: its statuses have none.
async fn explained(mut response: Response) -> Response {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    let reason = match status.code() {
        Code::Unimplemented => Reason::Unimplemented,
        // A message that is too large, or none at all.
        Code::OutOfRange | Code::Internal => Reason::InvalidRequest,
        // Health knows no such service.
        Code::NotFound => Reason::NotFound,
        _ => return response,
    };
    if status.details().is_empty() {
        let message = match status.message() {
            "" => reason.meaning(),
            message => message,
        };
        let status = to_status(&Refusal::new(reason, message));
        // On failure the response stays as it was.
        let _unexplained = status.add_header(response.headers_mut());
    }
    response
}

/// Everything that can be asked for by reflection: the contract, health, the details of errors, and the `other`
/// version of reflection, since each describes only itself.
fn described(other: &'static [u8]) -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(other)
}

/// Serves until the drain has stopped; calls under way may finish.
pub(super) async fn serve(
    server: Server,
    listener: Listener,
    drain: Drain,
) -> Result<(), transport::Error> {
    let stopped = async move { drain.reached(Phase::Stopped).await };
    server
        .serve_with_incoming_shutdown(listener.incoming(), stopped)
        .await
}

/// Tells whoever asks whether new work is taken here, as long as it is polled: not while the engine is unfit or has
/// failed, nor from the drain on.
pub(super) async fn tell_health(reporter: HealthReporter, engine: Arc<dyn Engine>, drain: Drain) {
    let mut told = ServingStatus::Serving;
    loop {
        let status = match engine.condition() {
            _ if drain.is_draining() => ServingStatus::NotServing,
            Condition::Well | Condition::Refusing(_) => ServingStatus::Serving,
            Condition::Unfit(_) | Condition::Failed(_) => ServingStatus::NotServing,
        };
        if status != told {
            told = status;
            set_health(&reporter, status).await;
        }
        tokio::select! {
            () = time::sleep(LOOK) => {}
            () = drain.reached(Phase::Draining), if !drain.is_draining() => {}
        }
    }
}

async fn set_health(reporter: &HealthReporter, status: ServingStatus) {
    for service in HEALTHY {
        reporter.set_service_status(service, status).await;
    }
}
