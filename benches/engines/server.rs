//! A Redis of its own, in a directory of its own.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::measured::{cpu_seconds, resident_bytes};

/// Ended with this.
pub(crate) struct Redis {
    process: Child,
    pub(crate) port: u16,
    _directory: TempDir,
}

impl Redis {
    /// Starts one with `options`.
    pub(crate) async fn start(options: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let directory = tempfile::tempdir().unwrap();
        let process = Command::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/.tools/bin/redis-server"
        ))
        .args([
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--bind",
            "127.0.0.1",
        ])
        .args(options)
        .current_dir(&directory)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self {
            process,
            port,
            _directory: directory,
        }
    }

    /// The CPU that it has used.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.process.id())
    }

    /// The memory that it takes at present.
    #[allow(dead_code, reason = "only one of the benches asks for it")]
    pub(crate) fn resident_bytes(&self) -> u64 {
        resident_bytes(self.process.id())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _ended_already = self.process.wait();
    }
}
