//! A real server on free ports, driven through stock clients.

mod abuse;
mod calls;
mod condition;
mod connections;
mod deadline;
mod delivery;
mod drain;
mod event_stream;
mod examples;
mod expiry;
mod http;
mod hung;
mod isolation;
mod missed;
mod open_runs;
mod operator;
mod page;
mod refused_sockets;
mod runs;
mod server;
mod slow;
mod sse;
mod storm;
mod stream;
mod usage;
mod wire;
