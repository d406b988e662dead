//! Programs that the tests start, and signals.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

/// How long anything may take that is expected to happen: on a loaded machine, too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A program that `make test` installs, else one of the machine's own.
pub(crate) fn tool(name: &str) -> Command {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(".tools/bin")
        .join(name);
    if installed.exists() {
        Command::new(installed)
    } else {
        Command::new(name)
    }
}

/// The same, killed when it takes longer than anything may.
pub(crate) fn bounded(name: &str) -> Command {
    let mut command = Command::new("timeout");
    let patience = PATIENCE.as_secs().to_string();
    command.args(["-s", "KILL", &patience]);
    command.arg(tool(name).get_program());
    command
}

/// Sends the process the signal of that name, such as `STOP`.
pub(crate) fn signal(pid: u32, name: &str) {
    // A shell has `kill` built in: no package is needed.
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -s {name} {pid}")])
        .status();
    assert!(sent.unwrap().success(), "kill -s {name} {pid}");
}

/// What the command printed; it must succeed.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}: install it with `make tools`"));
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{stdout}{stderr}",
        output.status
    );
    stdout.into_owned()
}

/// Waits until the process has ended, `None`: it did not within `patience`.
pub(crate) async fn ended(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if since.elapsed() > patience {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until `condition` holds; fails with `what` otherwise.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    until_within(PATIENCE, what, async || condition().await).await;
}

/// The same with another patience.
pub(crate) async fn until_within(
    patience: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let since = Instant::now();
    loop {
        // Asked once more after that: the process itself may have had no time.
        let is_late = since.elapsed() > patience;
        if condition().await {
            return;
        }
        assert!(!is_late, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The last lines of a file.
pub(crate) fn tail(file: &Path, lines: usize) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Copies a directory with all below it.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// All files below a directory, in the order of their names.
pub(crate) fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}
