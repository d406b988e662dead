//! What a directory's last process says of its end, beside the store: by it the next one can prove that nothing
//! acknowledged is missing, or cannot, and then begins a new epoch.
//!
//! The store drops what follows an entry that it cannot read, without a word. So the number of the last group that was
//! acknowledged stands in a file of its own, written after the group was made safe and before anyone is told. It is
//! not synced itself: it holds across the end of a process, not across that of the machine, which it notices by the
//! boot's id.
//!
//! A copy, or a backup that was put back, must not pass for the directory: whoever writes the file's bytes, the system
//! notes when (`ctime`, which nobody can set). That time must be the one at which the process says that it wrote them; of
//! a directory that was closed, exactly, which a second file (`seal`) says. Only what restores whole volumes gets past
//! that.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use crate::clock::{Clock, Entropy};

const FILE: &str = "witness";
const SEAL: &str = "seal";
const MAGIC: &[u8; 8] = b"emit-w02";
/// Magic, boot, inode, device, group, when it was written, and whether it was closed; then their hash.
const BODY: usize = 8 + 16 + 8 + 8 + 8 + 8 + 1;

/// How far what the system and what the process say of a writing may be apart, in milliseconds: two looks at one clock,
/// with a busy machine in between.
const APART: u64 = 10_000;
const HASH: usize = 16;

/// The file, open for writing.
pub(super) struct Witness {
    file: File,
    directory: PathBuf,
    boot: [u8; 16],
}

/// What the last process said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Testimony {
    /// The last group that was acknowledged.
    pub(super) group: u64,
    /// Whether it ended by itself.
    pub(super) closed: bool,
    /// Whether it still holds: nothing happened since that could have undone what was written.
    pub(super) holds: bool,
}

impl Witness {
    /// Whether `directory` has the file: a process has been at work in it.
    pub(super) fn is_there(directory: &Path) -> bool {
        directory.join(FILE).exists()
    }

    /// What the file of `directory` says; nothing if it is not there or not whole.
    pub(super) fn read(directory: &Path) -> Option<Testimony> {
        let mut file = File::open(directory.join(FILE)).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let (body, hash) = bytes.split_at_checked(BODY)?;
        let facts = file.metadata().ok()?;
        if !body.starts_with(MAGIC) || hash != &blake3::hash(body).as_bytes()[..HASH] {
            return None;
        }
        let number = |at: usize| {
            body.get(at..at + 8)?
                .try_into()
                .ok()
                .map(u64::from_le_bytes)
        };
        let same_file = number(24)? == facts.ino() && number(32)? == facts.dev();
        let closed = *body.get(56)? == 1;
        let holds = match closed {
            true => fs::read(directory.join(SEAL)).ok()? == changed(&facts),
            false => {
                let written = facts.ctime().unsigned_abs() * 1_000 + millis(&facts);
                body.get(8..24)? == boot() && written.abs_diff(number(48)?) <= APART
            }
        };
        Some(Testimony {
            group: number(40)?,
            closed,
            holds: same_file && holds,
        })
    }

    /// Opens the file of `directory`, which says from now on that a process is at work after `group`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn begin(directory: &Path, group: u64) -> io::Result<Self> {
        let path = directory.join(FILE);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true);
        let witness = Self {
            file: file.open(path)?,
            directory: directory.to_owned(),
            boot: boot(),
        };
        witness.write(group, false)?;
        witness.file.sync_all()?;
        Ok(witness)
    }

    /// Says that `group` is acknowledged.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn acknowledged(&self, group: u64) -> io::Result<()> {
        self.write(group, false)
    }

    /// Says that the process ends by itself after `group`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn close(&self, group: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let seal = options.create(true).truncate(false).write(true);
        let seal = seal.open(self.directory.join(SEAL))?;
        let write_seal = || seal.write_all_at(&changed(&self.file.metadata()?), 0);
        // Nothing that takes time stands between the two: a process that ended there would have proved nothing.
        self.write(group, true)?;
        write_seal()?;
        self.file.sync_all()?;
        // To some file systems that is a change too.
        write_seal()?;
        seal.sync_all()
    }

    fn write(&self, group: u64, closed: bool) -> io::Result<()> {
        let facts = self.file.metadata()?;
        let mut bytes = Vec::with_capacity(BODY + HASH);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.boot);
        let now = Clock::system().now().as_millis();
        for number in [facts.ino(), facts.dev(), group, now] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.push(u8::from(closed));
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(&hash.as_bytes()[..HASH]);
        self.file.write_all_at(&bytes, 0)
    }
}

/// When the system saw a file changed last.
fn changed(facts: &fs::Metadata) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&facts.ctime().to_le_bytes());
    bytes[8..].copy_from_slice(&facts.ctime_nsec().to_le_bytes());
    bytes
}

fn millis(facts: &fs::Metadata) -> u64 {
    facts.ctime_nsec().unsigned_abs() / 1_000_000
}

/// What tells this boot of the machine from others; where the system does not say, no two are the same.
fn boot() -> [u8; 16] {
    let mut short = [0; 16];
    match fs::read("/proc/sys/kernel/random/boot_id") {
        Ok(id) => short.copy_from_slice(&blake3::hash(&id).as_bytes()[..16]),
        Err(_) => Entropy::system().fill(&mut short),
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(directory: &Path) -> Option<(u64, bool)> {
        Witness::read(directory).map(|told| (told.group, told.holds))
    }

    #[test]
    fn what_was_acknowledged_last_is_told_and_a_copy_does_not_hold() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(told(directory.path()), None);
        let witness = Witness::begin(directory.path(), 3).unwrap();
        assert_eq!(told(directory.path()), Some((3, true)));
        witness.acknowledged(9).unwrap();
        assert_eq!(told(directory.path()), Some((9, true)));
        witness.close(10).unwrap();
        assert_eq!(told(directory.path()), Some((10, true)));

        let copy = tempfile::tempdir().unwrap();
        for file in [FILE, SEAL] {
            fs::copy(directory.path().join(file), copy.path().join(file)).unwrap();
        }
        assert_eq!(told(copy.path()), Some((10, false)));
        // Put back in place, a copy is the same file, and another writing: once the system's clock has moved on.
        let sealed = changed(&witness.file.metadata().unwrap());
        while changed(&witness.file.metadata().unwrap()) == sealed {
            for file in [FILE, SEAL] {
                fs::copy(copy.path().join(file), directory.path().join(file)).unwrap();
            }
        }
        assert_eq!(told(directory.path()), Some((10, false)));
    }

    #[test]
    fn after_another_boot_only_a_closed_one_holds() {
        let directory = tempfile::tempdir().unwrap();
        let mut witness = Witness::begin(directory.path(), 1).unwrap();
        witness.boot = [7; 16];
        witness.acknowledged(2).unwrap();
        assert_eq!(told(directory.path()), Some((2, false)));
        witness.close(2).unwrap();
        assert_eq!(told(directory.path()), Some((2, true)));
    }

    #[test]
    fn a_damaged_one_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        Witness::begin(directory.path(), 3).unwrap();
        let path = directory.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            fs::write(&path, flipped).unwrap();
            assert_eq!(told(directory.path()), None, "byte {at}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(told(directory.path()), None);
    }
}
