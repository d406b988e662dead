//! What a process did to its files, from a recording of its system calls, and what a loss of power would leave of them.

mod disk;
mod lines;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) use self::disk::Disk;
use crate::processes::tools::until;

/// A recorder that the command line of a process may begin with. The process stays a child of its own.
pub(crate) fn recorder(file: &Path) -> Vec<String> {
    let calls = [
        "open,openat,creat,close,lseek,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,ftruncate,truncate",
        "fallocate,copy_file_range,sendfile,fsync,fdatasync,sync_file_range,msync,rename,renameat,renameat2",
        "unlink,unlinkat,link,linkat,symlink,symlinkat,mkdir,mkdirat,rmdir,dup,dup2,dup3,fcntl",
    ];
    let words = [
        "strace",
        "-D",
        "-f",
        "--seccomp-bpf",
        "-y",
        "-xx",
        "-ttt",
        "-s",
        "4194304",
        "-q",
    ];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    words.push("-e".into());
    words.push(format!("trace={}", calls.join(",")));
    words.extend(["-o".into(), file.display().to_string()]);
    words
}

/// Waits until everything is recorded that the process did. The recorder is no child of ours, and may lag behind.
pub(crate) async fn recorded(file: &Path, pid: u32) {
    until("the recording is complete", async || {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut last = text
            .lines()
            .next_back()
            .unwrap_or_default()
            .split_whitespace();
        last.next() == Some(&pid.to_string()) && last.nth(1) == Some("+++")
    })
    .await;
}

/// One thing that the process did.
#[derive(Debug)]
enum Step {
    Open {
        path: PathBuf,
        fd: u32,
        flags: String,
    },
    /// Another descriptor of the same open file.
    Copy {
        fd: u32,
        of: u32,
    },
    Seek {
        fd: u32,
        to: u64,
    },
    Write {
        path: PathBuf,
        fd: u32,
        at: Option<u64>,
        data: Vec<u8>,
    },
    Truncate {
        path: PathBuf,
        length: u64,
    },
    Allocate {
        path: PathBuf,
        end: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    /// A sync is asked for: what was written before is in it.
    SyncBegun {
        path: PathBuf,
        thread: u32,
    },
    /// It is done.
    SyncEnded {
        thread: u32,
    },
    /// Bytes went to somebody.
    Sent {
        data: Vec<u8>,
    },
}

/// All that a process did below one directory, in order, and what it sent.
pub(crate) struct Trace {
    steps: Vec<Step>,
    /// When each was done.
    times: Vec<Duration>,
}

impl Trace {
    /// Reads a recording. Only files below `directory` count.
    ///
    /// # Panics
    /// When it has a call in it that is not understood, where that could matter.
    pub(crate) fn read(recording: &Path, directory: &Path) -> Self {
        let text = fs::read_to_string(recording).unwrap();
        let (steps, times) = lines::steps(&text, directory);
        Self { steps, times }
    }

    /// How many steps there are.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    /// The first step by which somebody was told of an id that matches.
    pub(crate) fn told(&self, is_id: impl Fn(&str) -> bool) -> HashMap<String, usize> {
        let mut told = HashMap::new();
        for (index, step) in self.steps.iter().enumerate() {
            let Step::Sent { data } = step else {
                continue;
            };
            let words = data.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'-'));
            for word in words.filter_map(|word| std::str::from_utf8(word).ok()) {
                if is_id(word) && !told.contains_key(word) {
                    told.insert(word.to_owned(), index);
                }
            }
        }
        told
    }

    /// How many syncs were done.
    pub(crate) fn syncs(&self) -> usize {
        let is_sync = |step: &&Step| matches!(step, Step::SyncEnded { .. });
        self.steps.iter().filter(is_sync).count()
    }

    /// The step by which the last sync of a journal began that was done within the first `steps` steps; 0 if none was.
    pub(crate) fn journal_synced(&self, steps: usize) -> usize {
        let (mut begun, mut synced) = (HashMap::new(), 0);
        for (index, step) in self.steps[..steps].iter().enumerate() {
            match step {
                Step::SyncBegun { path, thread }
                    if path.extension().is_some_and(|e| e == "jnl") =>
                {
                    begun.insert(*thread, index);
                }
                Step::SyncEnded { thread } => {
                    synced = synced.max(begun.remove(thread).unwrap_or(0))
                }
                _ => {}
            }
        }
        synced
    }

    /// How much time lies between two steps.
    pub(crate) fn between(&self, from: usize, to: usize) -> Duration {
        self.times[to].saturating_sub(self.times[from])
    }

    /// The files after the first `steps` steps.
    pub(crate) fn after(&self, steps: usize) -> Disk {
        let mut disk = Disk::default();
        for step in &self.steps[..steps] {
            disk.step(step);
        }
        disk
    }
}

/// Writes `files`, which were below `from`, below `to`.
pub(crate) fn rebuild(files: &BTreeMap<PathBuf, Vec<u8>>, from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for (name, content) in files {
        let path = to.join(name.strip_prefix(from).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

#[tokio::test]
async fn a_recording_says_what_a_loss_of_power_leaves() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("data");
    fs::create_dir(&directory).unwrap();
    let recording = scratch.path().join("recording");
    let script = "
        printf one >a; sync a; printf ' two' >>a
        printf new >t; sync t; mv t b; sync .
        printf lost >c; printf gone >d; sync d .; rm d
        dd if=/dev/zero of=e bs=8 count=4 conv=fsync 2>/dev/null
        dd if=a of=e bs=1 seek=10 count=3 conv=notrunc 2>/dev/null; truncate -s 20 e";
    let words = recorder(&recording);
    let mut strace = crate::processes::tools::tool(&words[0]);
    strace.args(&words[1..]).args(["sh", "-ec", script]);
    let mut shell = strace.current_dir(&directory).spawn().unwrap();
    assert!(shell.wait().unwrap().success());
    recorded(&recording, shell.id()).await;
    let trace = Trace::read(&recording, &directory);
    let disk = trace.after(trace.len());
    let texts = |files: BTreeMap<PathBuf, Vec<u8>>| -> Vec<(String, String)> {
        let text = |(name, content): (PathBuf, Vec<u8>)| {
            let name = name.file_name().unwrap().to_string_lossy().into_owned();
            let content = String::from_utf8(content).unwrap().replace('\0', "0");
            (name, content)
        };
        files.into_iter().map(text).collect()
    };
    let want = |files: &[(&str, &str)]| -> Vec<(String, String)> {
        let own = |(name, content): &(&str, &str)| ((*name).to_owned(), (*content).to_owned());
        files.iter().map(own).collect()
    };
    let zeros = "0".repeat(32);
    assert_eq!(
        texts(disk.now()),
        want(&[
            ("a", "one two"),
            ("b", "new"),
            ("c", "lost"),
            ("e", "0000000000one0000000")
        ])
    );
    assert_eq!(
        texts(disk.synced()),
        want(&[
            ("a", "one"),
            ("b", "new"),
            ("c", ""),
            ("d", "gone"),
            ("e", &zeros)
        ])
    );
    for (name, content) in disk.now() {
        assert_eq!(fs::read(&name).unwrap(), content, "{}", name.display());
    }
    let names: Vec<PathBuf> = disk.now().into_keys().collect();
    assert_eq!(names, crate::processes::tools::files(&directory));
}
