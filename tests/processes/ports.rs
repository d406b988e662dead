//! Ports that a process can come back to.
//!
//! A process that is killed and started again has to be found at the same address, so it cannot be given port 0. These
//! ports are outside the range that the system takes ports from by itself (32768 and up), so that no connection of the
//! tests takes one while its process is away.

use std::{fs::File, net::TcpListener, ops::Range, sync::Mutex};

/// Where they come from. 10,000 above each is one where a Redis node of a cluster meets the others: no port is both.
const FIRST: u16 = 10_240;
const BLOCKS: u16 = 40;
const BLOCK: u16 = 250;

/// The blocks of this process, and the ports in them that were not given away yet.
struct Held {
    /// Each locked until this process ends: several of them run on one machine.
    blocks: Vec<File>,
    ports: Range<u16>,
}

static HELD: Mutex<Held> = Mutex::new(Held {
    blocks: Vec::new(),
    ports: 0..0,
});

/// A free port from 10240 to 20239, never given twice. So is the port 10,000 above it.
pub(crate) fn free() -> u16 {
    let mut held = HELD.lock().unwrap();
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        match held.ports.next() {
            Some(port) if is_free(port) && is_free(port + 10_000) => return port,
            Some(_) => {}
            None => held.take_a_block(),
        }
    }
}

impl Held {
    /// One that no process holds.
    fn take_a_block(&mut self) {
        for block in 0..BLOCKS {
            let name = format!("emitter-tests-ports-{block}");
            let file = File::create(std::env::temp_dir().join(name));
            if let Ok(file) = file
                && file.try_lock().is_ok()
            {
                let first = FIRST + block * BLOCK;
                self.ports = first..first + BLOCK;
                self.blocks.push(file);
                return;
            }
        }
        panic!("all ports from {FIRST} on are taken");
    }
}
