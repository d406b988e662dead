//! Out again.
pub mod grpc;
