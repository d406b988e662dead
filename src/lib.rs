//! One typed door in and one ordered stream out for the events of AI agents.
//!
//! In the order in which an event meets them:
//!
//! - [`ingest`]: gRPC in: authenticate, validate, redact.
//! - [`sequencer`]: decides what becomes of each event, in one order per user.
//! - [`engine`]: stores the log.
//! - [`fanout`]: one tail per user with readers here, one cursor per reader.
//! - [`egress`]: out again, over WebSocket, SSE and gRPC.
//!
//! Beside the flow: [`access`] (who is who), [`operator`] (health and metrics), [`config`], [`client`], [`app`]
//! (builds and runs everything), [`page`] (what `dev` opens), [`cli`]. Below it: [`event`], [`usage`], [`run`], [`reason`], [`clock`], [`telemetry`],
//! [`shutdown`], [`net`].
//!
//! Each module imports only from the rungs below its own; `tests/it/ladder.rs` says which rung that is.

pub mod access;
pub mod app;
pub mod calls;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod egress;
pub mod engine;
pub mod event;
pub mod fanout;
pub mod ingest;
pub mod net;
pub mod operator;
pub mod page;
pub mod proto;
pub mod reason;
pub mod run;
pub mod sequencer;
pub mod shutdown;
pub mod telemetry;
pub mod usage;
