//! The service as processes of its own, under faults that need Redis, a tracer or mounts. `make test` installs them.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking and prints what it saw"
)]

#[path = "../it/engine_conformance/mod.rs"]
mod engine_conformance;
#[path = "../processes/mod.rs"]
#[allow(dead_code, reason = "shared by test binaries that use different parts")]
mod processes;
#[path = "../it/run_property/mod.rs"]
#[allow(dead_code, reason = "shared by test binaries that use different parts")]
mod run_property;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, reason = "shared by test binaries that use different parts")]
mod support;
use support::seed;

mod balancer;
mod clients;
mod engine_redis;
mod harness;
mod no_room;
mod nodes;
mod power_loss;
mod proxy;
mod reconnect;
mod redis;
mod redis_faults;
mod trace;
