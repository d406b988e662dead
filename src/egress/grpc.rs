//! gRPC out.
