//! Attacks on a real process. Each prints what it took from the service, and a bystander's events all arrive meanwhile.
//!
//! `cargo test --test it attacks -- --nocapture` prints the figures.

mod bystander;
mod files;
mod flood;
mod memory;
mod permits;
mod raw;

use crate::processes::server::Server;

/// A value of the process's `/proc/…/status`, in KiB.
fn status_kib(server: &Server, key: &str) -> u64 {
    let path = format!("/proc/{}/status", server.pid());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let value = line.and_then(|line| line.split_whitespace().next());
    value
        .unwrap_or_else(|| panic!("no {key} in {text}"))
        .parse()
        .unwrap()
}
