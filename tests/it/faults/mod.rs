//! A durable engine under faults: processes that are killed, and files that are damaged.

mod damage;
mod killed;
mod private;
mod refusing;

/// A durable engine in a directory of the server's own.
const DURABLE: &str = "[engine]\nkind = \"durable\"\ndata_dir = \"{data}\"\n";
