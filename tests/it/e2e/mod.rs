//! A real server on free ports, driven through stock clients.

mod abuse;
mod deadline;
mod drain;
mod expiry;
mod http;
mod isolation;
mod runs;
mod operator;
mod server;
mod slow;
mod storm;
mod stream;
mod wire;
