//! Integration tests: the library driven from outside, and a real server through real clients.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking and prints what it saw"
)]

mod asyncapi;
mod attacks;
mod durable;
mod e2e;
mod emission_property;
mod engine_conformance;
mod engines;
mod faults;
mod ladder;
mod memory_growth;
#[path = "../processes/mod.rs"]
#[allow(dead_code, reason = "shared by test binaries that use different parts")]
mod processes;
mod readme;
mod run_property;
mod sequencer;
mod simulation;
mod subscription;
mod support;
