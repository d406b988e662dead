//! The `emitter` command.

fn main() {}
