//! Files as a process sees them, and what of them a loss of power would leave.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use rand::{Rng, rngs::StdRng};

use super::Step;

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
    /// Does what the process did.
    pub(super) fn step(&mut self, step: &Step) {
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
