//! Integration tests: the library driven from outside, and a real server through real clients.

mod engine_conformance;
mod ladder;
mod support;
