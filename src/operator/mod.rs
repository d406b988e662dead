//! For operators: health and metrics over HTTP, and `emitter.v1.EmitterOperator` over gRPC.

mod cancel;
mod connections;
mod grpc;
mod http;
mod page_token;
mod refused_sources;
mod run;
mod runs;
mod runs_asked;
mod timeline;
mod usage;

pub use grpc::OperatorService;
pub use http::routes;
