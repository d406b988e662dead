//! Ports that a process can come back to.
//!
//! A process that is killed and started again has to be found at the same address, so it cannot be given port 0. These
//! ports are outside the range that the system takes ports from by itself (32768 and up), so that no connection of the
//! tests takes one while its process is away.

use std::{collections::HashSet, net::TcpListener, sync::Mutex};

/// Those given away by this process. Ports are never given twice.
static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A free port from 10240 to 22239. So is the port 10,000 above it, where Redis nodes of a cluster meet.
pub(crate) fn free() -> u16 {
    let mut given = GIVEN.lock().unwrap();
    let given = given.get_or_insert_default();
    for _ in 0..1000 {
        let port = rand::random_range(10_240..22_240);
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(port) && is_free(port + 10_000) && given.insert(port) {
            return port;
        }
    }
    panic!("no free port among 1,000 from 10240 to 22239");
}
