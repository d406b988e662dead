//! What the service leaves on a disk can be read by its own user only.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use super::DURABLE;
use crate::{
    processes::{
        load::{Load, LoadConfig},
        server::Server,
    },
    support::seed::seed,
};

/// The service inherits a mask that withholds nothing.
const UNMASKED: [&str; 3] = ["sh", "-ec", "umask 0; exec \"$0\" \"$@\""];

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

/// The directory, and everything below it that group or others may use.
fn open_to_others(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        if mode(&path) & 0o077 != 0 {
            found.push((path.clone(), format!("{:o}", mode(&path))));
        }
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            waiting.extend(entries.map(|entry| entry.unwrap().path()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_private_to_its_user() {
    let mut server = Server::start_under("durable", DURABLE, &UNMASKED).await;
    let load = Load::start(&LoadConfig::new(vec![server.grpc.clone()], seed()));
    load.acknowledged(50).await;
    drop(load.finish().await);
    assert!(server.terminate().await.success());
    let data = server.data();
    assert_eq!(open_to_others(&data), []);

    // A copy of what can be read, too.
    let into = server.directory().join("new");
    let mut repair = Command::new("sh");
    repair
        .args(&UNMASKED[1..])
        .arg(env!("CARGO_BIN_EXE_emitter"));
    repair.arg("repair").arg(&data).arg("--into").arg(&into);
    let output = repair.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(open_to_others(&into), []);

    // An older version made it with more: a start takes that from it, and says so.
    fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    server.restart().await;
    assert_eq!(format!("{:o}", mode(&data)), "700");
    let logged = server.logged();
    assert!(logged.contains("was open to other users"), "{logged}");
    assert!(server.terminate().await.success());
}
