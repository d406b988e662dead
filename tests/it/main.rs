//! Integration tests: the library driven from outside, and a real server through real clients.

mod ladder;
