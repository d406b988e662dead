//! The generated types of `proto/`. Only the edges (`ingest`, `egress`, `client`) and the payload bytes inside a
//! record speak them.

/// Package `emitter.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated from proto/, where the documentation stands"
)]
pub mod v1 {
    tonic::include_proto!("emitter.v1");
}

/// The file descriptors of `emitter.v1` and its imports, for server reflection.
pub const DESCRIPTORS: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/emitter.v1.descriptors.bin"));
