//! Ports that a process can come back to.
//!
//! A process that is killed and started again has to be found at the same address, so it cannot be given port 0. These
//! ports are outside the range that the system takes ports from by itself (32768 and up), so that no connection of the
//! tests takes one while its process is away.

use std::{
    fs::File,
    io::{Error, ErrorKind},
    net::TcpListener,
    ops::Range,
    path::Path,
    sync::Mutex,
};

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
        let mut failed = Vec::new();
        for block in 0..BLOCKS {
            let path = std::env::temp_dir().join(format!("emitter-tests-ports-{block}"));
            match locked(&path) {
                Ok(file) => {
                    let first = FIRST + block * BLOCK;
                    self.ports = first..first + BLOCK;
                    self.blocks.push(file);
                    return;
                }
                Err(why) => failed.push(format!("{}: {why}", path.display())),
            }
        }
        panic!("no ports: none of these can be locked: {failed:#?}");
    }
}

/// The file at `path`, locked. That of another user cannot be written, and need not be: ports are shared with him, too.
fn locked(path: &Path) -> Result<File, Error> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => File::create(path)?,
        opened => opened?,
    };
    file.try_lock()?;
    Ok(file)
}
