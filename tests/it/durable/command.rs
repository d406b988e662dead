//! `emitter repair`, as a person or a script calls it.

use std::{fs, process::Command};

use serde_json::Value;

use super::damaged::written;

/// `emitter repair` with `arguments`: its exit code, its standard output, and its standard error.
fn repair(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emitter"));
    let output = command.arg("repair").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn the_command_tells_what_is_so_and_exits_with_1_where_a_start_refuses() {
    let base = tempfile::tempdir().unwrap();
    let (data, into) = (base.path().join("data"), base.path().join("new"));
    written(&data, 3).await;
    let (dir, new) = (data.to_str().unwrap(), into.to_str().unwrap());
    let (code, out, err) = repair(&[dir]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(
        out.contains("records     3 of 3 readable, up to offset 3\n"),
        "{out}"
    );
    assert!(
        out.ends_with("next start  goes on under this epoch: nothing acknowledged is missing\n")
    );

    // Copied, it would begin a new epoch: after it was given one, that is no longer said.
    fs::remove_file(data.join("witness")).unwrap();
    let (code, out, _) = repair(&[dir]);
    assert_eq!(code, Some(0));
    assert!(
        out.contains("next start  begins a new epoch: it does not say how"),
        "{out}"
    );
    let (code, out, _) = repair(&[dir, "--new-epoch"]);
    assert_eq!(code, Some(0));
    assert!(
        out.contains("goes on under this epoch") && !out.contains("begins"),
        "{out}"
    );
    assert!(out.ends_with("has a new epoch.\n"), "{out}");

    let data = base.path().join("damaged");
    let dir = data.to_str().unwrap();
    written(&data, 3).await;
    let mut journal = fs::read(data.join("0.jnl")).unwrap();
    let id = journal
        .windows(6)
        .position(|bytes| bytes == b"note-1")
        .unwrap();
    journal[id] ^= 1;
    fs::write(data.join("0.jnl"), journal).unwrap();
    let (code, out, _) = repair(&[dir]);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("records     1 of 1 readable, up to offset 1\nmissing     "),
        "{out}"
    );
    assert!(
        out.contains("next start  refuses, it is damaged: journal 0.jnl, byte "),
        "{out}"
    );
    let (code, out, _) = repair(&[dir, "--json"]);
    assert_eq!(code, Some(1));
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&told["readable"]["records"], &told["next_start"]),
        (&1.into(), &"refuses".into())
    );
    let (code, _, err) = repair(&[dir, "--new-epoch"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("it is damaged: journal 0.jnl"), "{err}");
    let (code, out, err) = repair(&[dir, "--into", new]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(
        out.contains("records     1 of 1 readable") && out.contains("has a new epoch"),
        "{out}"
    );
    let (code, _, err) = repair(&[dir, "--into", new]);
    assert_eq!(code, Some(1));
    assert!(err.contains(new) && err.contains("exists"), "{err}");
}

#[test]
fn the_command_says_what_a_directory_is_that_is_none() {
    let base = tempfile::tempdir().unwrap();
    let named = |name: &str| base.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(named("empty")).unwrap();
    fs::create_dir(named("foreign")).unwrap();
    fs::write(base.path().join("foreign/thesis.txt"), "draft").unwrap();
    for (name, said) in [
        ("empty", "it is empty: no data directory of emitter yet"),
        (
            "foreign",
            "it is not empty, and not a data directory of emitter",
        ),
        ("nowhere", "No such file or directory"),
    ] {
        for more in [&[][..], &["--new-epoch"], &["--into", "new"]] {
            let name = named(name);
            let (code, out, err) = repair(&[&[name.as_str()], more].concat());
            assert_eq!((code, out.as_str()), (Some(1), ""), "{name} {more:?}");
            let said = format!("error: {name}: {said}");
            assert!(err.contains(&said), "{name} {more:?}: {err}");
        }
    }
    assert!(!base.path().join("nowhere").exists());
    assert_eq!(fs::read_dir(named("empty")).unwrap().count(), 0);
}

/// Where nothing can be written to the directory, it is looked into from elsewhere; where that cannot be either, that is
/// said.
#[tokio::test]
async fn the_command_looks_into_a_directory_that_it_cannot_write() {
    let base = tempfile::tempdir().unwrap();
    let data = base.path().join("data");
    written(&data, 3).await;
    fs::write(data.join("inspection"), "in the way").unwrap();
    let elsewhere = base.path().join("elsewhere");
    let dir = data.to_str().unwrap();
    let look = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_emitter"));
        let output = command.args(["repair", dir]).env("TMPDIR", &elsewhere);
        let output = output.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, out, err) = look();
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        err.contains("data/inspection: ") && err.contains("elsewhere/emitter-inspection-"),
        "{err}"
    );
    fs::create_dir(&elsewhere).unwrap();
    let (code, out, err) = look();
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("records     3 of 3 readable"), "{out}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[tokio::test]
async fn the_command_tells_what_the_store_panics_with_and_which_file_is_in_the_way() {
    let base = tempfile::tempdir().unwrap();
    let data = base.path().join("data");
    written(&data, 3).await;
    let dir = data.to_str().unwrap();
    fs::write(base.path().join("file"), "").unwrap();
    let into = base.path().join("file/new");
    let (code, _, err) = repair(&[dir, "--into", into.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(err.contains("/file") && !err.contains(dir), "{err}");
    fs::create_dir(data.join("stray.jnl")).unwrap();
    let (code, _, err) = repair(&[dir, "--new-epoch"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("its files: assertion failed"), "{err}");
    assert!(
        err.contains("the store failed") && !err.contains("panicked"),
        "{err}"
    );
    fs::remove_dir(data.join("stray.jnl")).unwrap();
    fs::remove_file(data.join("version")).unwrap();
    let (code, out, _) = repair(&[dir]);
    assert_eq!(code, Some(1));
    assert!(out.contains("readable    nothing for certain\n"), "{out}");
}
