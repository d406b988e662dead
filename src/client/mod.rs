//! A client in Rust: a producer and an operator over gRPC, and a reader over WebSocket that resumes by itself.

mod address;
mod backoff;
mod credential;
mod frame;
mod grpc;
mod operator;
mod producer;
mod reader;
mod seen;
mod socket;

pub use address::{Address, UrlError};
pub use credential::Credential;
pub use frame::{Fields, Frame};
pub use operator::{Answer, Operator};
pub use producer::{Fate, Producer, ProducerConfig};
pub use reader::{Item, Reader, ReaderConfig, Start, Stopped};
