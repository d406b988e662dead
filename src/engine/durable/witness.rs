//! What a directory's last process says of its end, beside the store: by it the next one can prove that nothing
//! acknowledged is missing, or cannot, and then begins a new epoch.
//!
//! The store drops what follows an entry that it cannot read, without a word. So the number of the last group that was
//! acknowledged stands in a file of its own, written after the group was made safe and before anyone is told. It is
//! not synced itself: it holds across the end of a process, not across that of the machine, which it notices by the
//! boot's id. A directory that was copied or restored has the file under another inode.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

const FILE: &str = "witness";
const MAGIC: &[u8; 8] = b"emit-w01";
/// Magic, boot, inode, device, group, and whether it was closed; then their hash.
const BODY: usize = 8 + 16 + 8 + 8 + 8 + 1;
const HASH: usize = 16;

/// The file, open for writing.
pub(super) struct Witness {
    file: File,
    boot: [u8; 16],
}

/// What the last process said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Testimony {
    /// The last group that was acknowledged.
    pub(super) group: u64,
    /// Whether it still holds: nothing happened since that could have undone what was written.
    pub(super) holds: bool,
}

impl Witness {
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
        let same_boot = body.get(8..24)? == boot();
        let closed = *body.get(48)? == 1;
        Some(Testimony {
            group: number(40)?,
            holds: same_file && (same_boot || closed),
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
        self.write(group, true)?;
        self.file.sync_all()
    }

    fn write(&self, group: u64, closed: bool) -> io::Result<()> {
        let facts = self.file.metadata()?;
        let mut bytes = Vec::with_capacity(BODY + HASH);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.boot);
        for number in [facts.ino(), facts.dev(), group] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.push(u8::from(closed));
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(&hash.as_bytes()[..HASH]);
        self.file.write_all_at(&bytes, 0)
    }
}

/// What tells this boot of the machine from others; where the system does not say, no two are the same.
fn boot() -> [u8; 16] {
    let mut short = [0; 16];
    match fs::read("/proc/sys/kernel/random/boot_id") {
        Ok(id) => short.copy_from_slice(&blake3::hash(&id).as_bytes()[..16]),
        Err(_) => crate::clock::Entropy::system().fill(&mut short),
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
        fs::copy(directory.path().join(FILE), copy.path().join(FILE)).unwrap();
        assert_eq!(told(copy.path()), Some((10, false)));
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
