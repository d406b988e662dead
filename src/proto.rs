//! The generated types of `proto/`. Only the edges (`ingest`, `egress`, `client`) and the payload bytes inside a
//! record speak `emitter.v1`, only engines what they store.

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

/// Package `emitter.stored.v1`: how engines write down what they store.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated from proto/, where the documentation stands"
)]
pub(crate) mod stored {
    tonic::include_proto!("emitter.stored.v1");
}

/// The file descriptors of `emitter.v1` and its imports, for server reflection.
pub const DESCRIPTORS: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/emitter.v1.descriptors.bin"));
