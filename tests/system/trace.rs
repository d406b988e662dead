//! What a process did to its files, from a recording of its system calls, and what a loss of power would leave of them.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use rand::{Rng, rngs::StdRng};

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
        last.next() == Some(&pid.to_string()) && last.next() == Some("+++")
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
}

impl Trace {
    /// Reads a recording. Only files below `directory` count.
    ///
    /// # Panics
    /// When it has a call in it that is not understood, where that could matter.
    pub(crate) fn read(recording: &Path, directory: &Path) -> Self {
        let text = fs::read_to_string(recording).unwrap();
        let mut reader = Lines {
            directory: directory.to_owned(),
            begun: HashMap::new(),
            steps: Vec::new(),
        };
        for line in text.lines() {
            reader.line(line);
        }
        Self {
            steps: reader.steps,
        }
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

    /// The files after the first `steps` steps.
    pub(crate) fn after(&self, steps: usize) -> Disk {
        let mut disk = Disk::default();
        for step in &self.steps[..steps] {
            disk.step(step);
        }
        disk
    }
}

/// Takes a recording apart, line by line.
struct Lines {
    directory: PathBuf,
    /// Calls that have begun, by thread.
    begun: HashMap<u32, String>,
    steps: Vec<Step>,
}

impl Lines {
    fn line(&mut self, line: &str) {
        let (thread, rest) = line.split_once(' ').expect("a thread and a call");
        let thread = thread.parse().expect("a thread");
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            return;
        }
        if let Some(call) = rest.strip_suffix(" <unfinished ...>") {
            self.begin(thread, call);
            self.begun.insert(thread, call.to_owned());
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let (_, end) = resumed.split_once(" resumed>").expect("the rest of a call");
            let begun = self.begun.remove(&thread).expect("it has begun");
            self.end(thread, &format!("{begun}{end}"));
        } else {
            self.begin(thread, rest);
            self.end(thread, rest);
        }
    }

    /// What counts from the begin of a call.
    fn begin(&mut self, thread: u32, call: &str) {
        let (name, arguments) = call.split_once('(').expect("a call");
        match name {
            "fsync" | "fdatasync" => {
                if let Some((_, path)) = self.descriptor(arguments) {
                    self.steps.push(Step::SyncBegun { path, thread });
                }
            }
            "write" | "writev" | "sendto" | "sendmsg" if is_socket(arguments) => {
                let data = strings(arguments);
                self.steps.push(Step::Sent { data });
            }
            _ => {}
        }
    }

    /// What counts once a call is done.
    fn end(&mut self, thread: u32, call: &str) {
        let Some((call, result)) = call.rsplit_once(" = ") else {
            // The process ended in it.
            return;
        };
        let Some((name, arguments)) = call.split_once('(') else {
            return;
        };
        let digits = result.split(|c: char| !c.is_ascii_digit()).next();
        let Some(result_number) = digits.and_then(|digits| digits.parse::<u64>().ok()) else {
            return;
        };
        let step = match name {
            "open" | "openat" | "creat" => self.open(name, arguments, result),
            "fsync" | "fdatasync" => self
                .descriptor(arguments)
                .map(|_| Step::SyncEnded { thread }),
            "rename" | "renameat" | "renameat2" => self.rename(arguments),
            "unlink" | "unlinkat" | "rmdir" => self
                .named(arguments)
                .pop()
                .map(|path| Step::Unlink { path }),
            "sendto" | "sendmsg" | "close" | "mkdir" | "mkdirat" => None,
            _ => self.on_descriptor(name, arguments, result_number),
        };
        self.steps.extend(step);
    }

    fn on_descriptor(&self, name: &str, arguments: &str, result: u64) -> Option<Step> {
        let (fd, path) = self.descriptor(arguments)?;
        let numbers: Vec<u64> = arguments
            .trim_end()
            .trim_end_matches(')')
            .rsplit(", ")
            .map_while(|number| number.parse().ok())
            .collect();
        let write = |at: Option<u64>| {
            let mut data = strings(arguments);
            data.truncate(usize::try_from(result).unwrap());
            let path = path.clone();
            Step::Write { path, fd, at, data }
        };
        let copy = Step::Copy {
            fd: u32::try_from(result).unwrap_or_default(),
            of: fd,
        };
        Some(match name {
            "write" | "writev" => write(None),
            "pwrite64" | "pwritev" => write(Some(numbers[0])),
            "lseek" => Step::Seek { fd, to: result },
            "dup" | "dup2" | "dup3" => copy,
            "fcntl" if arguments.contains("F_DUPFD") => copy,
            "fcntl" => return None,
            "ftruncate" => {
                let length = numbers[0];
                Step::Truncate { path, length }
            }
            "fallocate" => {
                let end = numbers[0] + numbers[1];
                assert!(arguments.contains(", 0, "), "{name}({arguments}");
                Step::Allocate { path, end }
            }
            _ => panic!("{name}({arguments} is not understood"),
        })
    }

    fn open(&self, name: &str, arguments: &str, result: &str) -> Option<Step> {
        let (fd, path) = self.descriptor(result)?;
        let mut flags = arguments.rsplit('"').next().unwrap_or_default().to_owned();
        if name == "creat" {
            flags.push_str("O_CREAT|O_TRUNC");
        }
        Some(Step::Open { path, fd, flags })
    }

    fn rename(&self, arguments: &str) -> Option<Step> {
        let mut names = self.named(arguments);
        let to = names.pop()?;
        let from = names.pop().expect("renamed from outside");
        Some(Step::Rename { from, to })
    }

    /// The descriptor that `text` begins with, if it is of a file below the directory.
    fn descriptor(&self, text: &str) -> Option<(u32, PathBuf)> {
        let (fd, rest) = text.split_once('<')?;
        let path = rest.split_once('>')?.0;
        let path = PathBuf::from(String::from_utf8(unhex(path)).ok()?);
        let inside = path.starts_with(&self.directory);
        inside.then(|| (fd.parse().expect("a descriptor"), path))
    }

    /// The paths below the directory that are named in `arguments`.
    fn named(&self, arguments: &str) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        let mut parts = arguments.split('"');
        while let (Some(before), Some(name)) = (parts.next(), parts.next()) {
            let text = |hex| PathBuf::from(String::from_utf8(unhex(hex)).expect("a name"));
            // A relative name is relative to the directory before it.
            let base = before
                .rsplit_once('<')
                .and_then(|(_, base)| base.split_once('>'));
            let base = base.map(|(base, _)| text(base)).unwrap_or_default();
            let path = base.join(text(name));
            assert!(path.is_absolute(), "of which directory? {arguments}");
            paths.push(path);
        }
        paths.retain(|path| path.starts_with(&self.directory));
        paths
    }
}

fn is_socket(arguments: &str) -> bool {
    let kind = arguments.split_once('<').map(|(_, rest)| rest);
    let name = kind.and_then(|rest| rest.split_once('>'));
    name.is_some_and(|(name, _)| unhex(name).starts_with(b"socket:"))
}

/// All strings in `arguments`, one after the other.
fn strings(arguments: &str) -> Vec<u8> {
    let texts = arguments.split('"').skip(1).step_by(2);
    texts.flat_map(unhex).collect()
}

/// A text in which bytes may stand as `\x61`.
fn unhex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if let [b'x', high, low, after @ ..] = after
            && first == b'\\'
        {
            let digit = |digit: u8| (digit as char).to_digit(16).expect("a digit") as u8;
            bytes.push(digit(*high) << 4 | digit(*low));
            rest = after;
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    bytes
}

/// Files as the process sees them, and as the disk has them for sure.
#[derive(Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    /// Where each file is now.
    names: BTreeMap<PathBuf, usize>,
    /// Where each file is for sure.
    synced_names: BTreeMap<PathBuf, usize>,
    /// The open file of each descriptor.
    descriptors: HashMap<u32, usize>,
    /// Where each open file stands; `None`: always at the end.
    positions: Vec<Option<u64>>,
    /// Syncs that have begun, by thread.
    syncing: HashMap<u32, Sync>,
}

#[derive(Default)]
struct File {
    synced: Vec<u8>,
    /// What happened to it after that.
    later: Vec<Change>,
    /// How long it is with that.
    length: u64,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

enum Sync {
    /// Of this file, with so many changes.
    File(usize, usize),
    /// Of the names in a directory.
    Names(PathBuf, BTreeMap<PathBuf, usize>),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let at = usize::try_from(*at).unwrap();
                let end = at + data.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[at..end].copy_from_slice(data);
            }
            Self::Length(length) => content.resize(usize::try_from(*length).unwrap(), 0),
        }
    }
}

impl File {
    fn content(&self, changes: usize) -> Vec<u8> {
        let mut content = self.synced.clone();
        for change in &self.later[..changes] {
            change.apply(&mut content);
        }
        content
    }

    fn now(&self) -> Vec<u8> {
        self.content(self.later.len())
    }
}

impl Disk {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Open { path, fd, flags } => self.open(path, *fd, flags),
            Step::Copy { fd, of } => {
                if let Some(&open) = self.descriptors.get(of) {
                    self.descriptors.insert(*fd, open);
                }
            }
            Step::Seek { fd, to } => {
                if let Some(position) = self.position(*fd) {
                    *position = *to;
                }
            }
            Step::Write { path, fd, at, data } => self.write(path, *fd, *at, data),
            Step::Truncate { path, length } => self.change(path, Change::Length(*length)),
            Step::Allocate { path, end } => {
                if self.length(path) < *end {
                    self.change(path, Change::Length(*end));
                }
            }
            Step::Rename { from, to } => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                }
            }
            Step::Unlink { path } => {
                self.names.remove(path);
            }
            Step::SyncBegun { path, thread } => self.begin_sync(path, *thread),
            Step::SyncEnded { thread } => self.end_sync(*thread),
            Step::Sent { .. } => {}
        }
    }

    fn open(&mut self, path: &Path, fd: u32, flags: &str) {
        let has = |flag: &str| flags.contains(flag);
        if has("O_DIRECTORY") {
            return;
        }
        if !self.names.contains_key(path) {
            if !has("O_CREAT") {
                // A directory.
                return;
            }
            self.files.push(File::default());
            self.names.insert(path.to_owned(), self.files.len() - 1);
        }
        if has("O_TRUNC") {
            self.change(path, Change::Length(0));
        }
        self.positions.push((!has("O_APPEND")).then_some(0));
        self.descriptors.insert(fd, self.positions.len() - 1);
    }

    /// Where the descriptor stands, unless it is at the end.
    fn position(&mut self, fd: u32) -> Option<&mut u64> {
        let open = *self.descriptors.get(&fd)?;
        self.positions.get_mut(open)?.as_mut()
    }

    fn write(&mut self, path: &Path, fd: u32, at: Option<u64>, data: &[u8]) {
        let length = self.length(path);
        let at = match (at, self.position(fd)) {
            (Some(at), _) => at,
            (None, Some(position)) => {
                let at = *position;
                *position += data.len() as u64;
                at
            }
            (None, None) => length,
        };
        self.change(path, Change::Write(at, data.to_vec()));
    }

    fn change(&mut self, path: &Path, change: Change) {
        let file = self.names.get(path);
        // A file that has no name any more is nothing that a start finds.
        if let Some(&file) = file {
            let file = &mut self.files[file];
            file.length = match &change {
                Change::Write(at, data) => file.length.max(at + data.len() as u64),
                Change::Length(length) => *length,
            };
            file.later.push(change);
        }
    }

    fn length(&self, path: &Path) -> u64 {
        let file = self.names.get(path);
        file.map_or(0, |&file| self.files[file].length)
    }

    fn begin_sync(&mut self, path: &Path, thread: u32) {
        let sync = match self.names.get(path) {
            Some(&file) => Sync::File(file, self.files[file].later.len()),
            None => {
                let names = self.names.iter();
                let inside = names.filter(|(name, _)| name.parent() == Some(path));
                let inside = inside.map(|(name, file)| (name.clone(), *file));
                Sync::Names(path.to_owned(), inside.collect())
            }
        };
        self.syncing.insert(thread, sync);
    }

    fn end_sync(&mut self, thread: u32) {
        match self.syncing.remove(&thread) {
            Some(Sync::File(file, changes)) => {
                let known = &mut self.files[file];
                // Another sync may have come first.
                let changes = changes.min(known.later.len());
                for change in known.later.drain(..changes) {
                    change.apply(&mut known.synced);
                }
                // File systems in use write a new file's name down with it (ext4, XFS, btrfs).
                let name = self.names.iter().find(|(_, at)| **at == file);
                if let Some((name, _)) = name
                    && !self.synced_names.values().any(|at| *at == file)
                {
                    self.synced_names.insert(name.clone(), file);
                }
            }
            Some(Sync::Names(directory, names)) => {
                self.synced_names
                    .retain(|name, _| name.parent() != Some(&directory));
                self.synced_names.extend(names);
            }
            None => {}
        }
    }

    /// The files as the process sees them.
    pub(crate) fn now(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let content = |(name, &file): (&PathBuf, &usize)| (name.clone(), self.files[file].now());
        self.names.iter().map(content).collect()
    }

    /// The files if nothing survives but what was synced.
    pub(crate) fn synced(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let content =
            |(name, &file): (&PathBuf, &usize)| (name.clone(), self.files[file].synced.clone());
        self.synced_names.iter().map(content).collect()
    }

    /// The files if by chance more survives: of each file some changes more, the last one in part, and some names.
    pub(crate) fn by_chance(&self, rng: &mut StdRng) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut names = self.synced_names.clone();
        for (name, file) in &self.names {
            if rng.random() {
                names.insert(name.clone(), *file);
            }
        }
        let mut files = BTreeMap::new();
        let mut contents: HashMap<usize, Vec<u8>> = HashMap::new();
        for (name, index) in names {
            let file = &self.files[index];
            let content = contents.entry(index).or_insert_with(|| {
                let whole = rng.random_range(0..=file.later.len());
                let mut content = file.content(whole);
                if let Some(Change::Write(at, data)) = file.later.get(whole) {
                    let part = data[..rng.random_range(0..=data.len())].to_vec();
                    Change::Write(*at, part).apply(&mut content);
                }
                content
            });
            files.insert(name, content.clone());
        }
        files
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
