//! A recording of system calls, taken apart line by line.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use super::Step;

/// What the recording `text` says that was done below `directory`, in order, and when: since 1970.
///
/// # Panics
/// When it has a call in it that is not understood, where that could matter.
pub(super) fn steps(text: &str, directory: &Path) -> (Vec<Step>, Vec<Duration>) {
    let mut lines = Lines {
        directory: directory.to_owned(),
        begun: HashMap::new(),
        steps: Vec::new(),
    };
    let mut times = Vec::new();
    for line in text.lines() {
        let time = lines.line(line);
        times.resize(lines.steps.len(), time);
    }
    (lines.steps, times)
}

/// Takes a recording apart, line by line.
struct Lines {
    directory: PathBuf,
    /// Calls that have begun, by thread.
    begun: HashMap<u32, String>,
    steps: Vec<Step>,
}

impl Lines {
    /// Takes in a line. Returns its time.
    fn line(&mut self, line: &str) -> Duration {
        let (thread, rest) = line.split_once(' ').expect("a thread, a time and a call");
        let thread = thread.parse().expect("a thread");
        let (time, rest) = rest.trim_start().split_once(' ').expect("a time");
        let time = Duration::from_secs_f64(time.parse().expect("seconds"));
        self.call(thread, rest.trim_start());
        time
    }

    fn call(&mut self, thread: u32, rest: &str) {
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
