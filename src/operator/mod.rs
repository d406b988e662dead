//! For operators: health and metrics over HTTP, and `emitter.v1.EmitterOperator` over gRPC.

mod connections;
mod grpc;
mod http;
mod refused_sources;
mod runs;
mod usage;

pub use grpc::OperatorService;
pub use http::{Node, routes};
