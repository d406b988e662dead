//! The store's journals, read before the store is opened. The store cuts off what it cannot read, makes a new journal
//! where there is none, and believes the numbers of batches, which no checksum covers: so they are looked at here.
//!
//! A batch is a start (how many entries, and its number), its entries, and an end (their checksum, and four bytes that
//! never change). Numbers are little-endian. After the last batch comes nothing, or zeros.
//!
//! What is not whole is the end of what was written, or it is damage. Within one boot of the machine writings reach the
//! file in their order: there, a whole batch behind it shows damage. When the machine ended, any page may be missing, and
//! nothing behind the first that is can be told from damage: it is the end. No batch of a later journal can be behind it,
//! for a journal is made safe before the next one is made.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use xxhash_rust::xxh3::Xxh3Default;

use super::{OpenError, space, witness::Witness};

/// The highest number that is plausible: a million batches a second take two thousand years to it. The store itself
/// panics at 2^63.
pub(super) const MOST_BATCHES: u64 = 1 << 56;

const TRAILER: [u8; 4] = *b"FJL\x03";

/// How much of a journal is searched for a batch, in bytes. One has 64 MiB, and the batch with which it is full.
const MOST_SEARCHED: u64 = 256 << 20;

/// How much is read of what looks like batches there, in bytes.
const MOST_TRIED: u64 = 1 << 30;

/// The journals of a directory, as far as they can be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Journals {
    /// Those that can be read, by their names, oldest first, and so many bytes of each.
    pub(super) readable: Vec<(String, u64)>,
    /// What is wrong with those, or behind them, and in which file.
    pub(super) fault: Option<String>,
    /// What a start cuts off: what follows the last whole batch, by the journals' names and the first bytes.
    pub(super) torn: Vec<(String, u64)>,
}

impl Journals {
    /// Reads those of `directory`, up to the first fault. The caller holds the directory's lock.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        // Nothing happened since that could have undone a writing, and not the next one.
        let in_order = Witness::read(directory).is_some_and(|told| told.holds);
        let ids = ids(directory)?;
        let mut journals = Self::default();
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else {
            journals.fault = Some("its journal is missing (a file such as 0.jnl)".into());
            return Ok(journals);
        };
        let mut newest = None;
        let mut broken: Option<String> = None;
        for id in *first..=*last {
            let name = format!("{id}.jnl");
            if !ids.contains(&id) {
                journals.fault = Some(format!("its journal {name} is missing"));
                break;
            }
            let path = directory.join(&name);
            if broken.is_some() {
                if has_batch(&path, 0, newest)? {
                    journals.fault = broken;
                    break;
                }
                if !is_blank(&path)? {
                    journals.torn.push((name.clone(), 0));
                }
                journals.readable.push((name, 0));
                continue;
            }
            let (whole, what) = read(&path, &mut newest)?;
            journals.readable.push((name.clone(), whole));
            let Some(what) = what else { continue };
            let told = format!("journal {name}, byte {whole}: {}", what.told());
            if in_order && (what == Broken::Number || has_batch(&path, whole + 1, newest)?) {
                journals.fault = Some(told);
                break;
            }
            broken = Some(told);
            journals.torn.push((name, whole));
        }
        Ok(journals)
    }

    /// Cuts off what follows the last whole batch, as the end of a process or of the machine leaves it: the store would
    /// refuse some of that. The caller holds the directory's lock.
    ///
    /// # Errors
    /// When one is damaged or missing: then they are left as they are.
    pub(super) fn prepare(directory: &Path) -> Result<(), OpenError> {
        let journals = Self::read(directory)?;
        if let Some(fault) = journals.fault {
            return Err(OpenError::Partly(fault));
        }
        for (journal, byte) in journals.torn {
            tracing::warn!(
                journal,
                byte,
                "what follows is no whole batch, and is cut off"
            );
            let file = File::options().write(true).open(directory.join(journal))?;
            file.set_len(byte)?;
            file.sync_all()?;
        }
        Ok(())
    }
}

/// How many bytes of the disk the journals of `directory` take; what cannot be looked at counts nothing.
pub(super) fn taken(directory: &Path) -> u64 {
    let journals = ids(directory).unwrap_or_default().into_iter();
    journals
        .map(|id| space::taken_by_file(&directory.join(format!("{id}.jnl"))))
        .sum()
}

/// The numbers of the journals' files, in their order.
fn ids(directory: &Path) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".jnl"));
        ids.extend(id.and_then(|id| id.parse::<u64>().ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Why a batch is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// There is none, or it has no end.
    Unreadable,
    Sum,
    Entries,
    /// All of it is there, but for the number.
    Number,
}

impl Broken {
    fn told(self) -> &'static str {
        match self {
            Self::Unreadable => "what is there is no batch, and others follow",
            Self::Sum => "a batch's checksum is wrong, and others follow",
            Self::Entries => "a batch has not as many entries as it says, and others follow",
            Self::Number => "a batch's number, or that of the one before it, is wrong",
        }
    }
}

/// Reads a journal whose batches are younger than `newest`: how long those are that are whole, and what follows, if
/// anything was written there.
fn read(path: &Path, newest: &mut Option<u64>) -> io::Result<(u64, Option<Broken>)> {
    let mut reader = Reader::of(BufReader::with_capacity(1 << 16, File::open(path)?));
    let mut whole = 0;
    loop {
        let broken = match reader.batch()? {
            Ok(number) if is_after(number, *newest) => {
                (*newest, whole) = (Some(number), reader.at);
                continue;
            }
            Ok(_) => Broken::Number,
            Err(Broken::Unreadable) if is_blank_from(reader.from.get_mut(), whole)? => {
                return Ok((whole, None));
            }
            Err(broken) => broken,
        };
        return Ok((whole, Some(broken)));
    }
}

/// Whether a journal has a whole batch anywhere from the byte `at` on, with a number after `newest`. Where too much looks
/// like one, it has.
fn has_batch(path: &Path, at: u64, newest: Option<u64>) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(MOST_SEARCHED).read_to_end(&mut bytes)?;
    while bytes.ends_with(&ZEROS) {
        bytes.truncate(bytes.len() - ZEROS.len());
    }
    let mut tried = 0;
    for start in 0..bytes.len() {
        let bytes = &bytes[start..];
        if !is_start(bytes, newest) {
            continue;
        }
        let mut reader = Reader::of(bytes);
        if reader.batch()?.is_ok() {
            return Ok(true);
        }
        tried += reader.at;
        if tried > MOST_TRIED {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a batch may begin there, with a number after `newest`.
fn is_start(bytes: &[u8], newest: Option<u64>) -> bool {
    let number = bytes.get(5..13).and_then(|bytes| bytes.try_into().ok());
    bytes[0] == 1 && number.is_some_and(|number| is_after(u64::from_le_bytes(number), newest))
}

fn is_after(number: u64, newest: Option<u64>) -> bool {
    number < MOST_BATCHES && newest.is_none_or(|newest| newest < number)
}

enum Entry {
    Start { entries: u32, number: u64 },
    Change,
    End { is_sum_right: bool },
}

struct Reader<R> {
    from: R,
    at: u64,
    /// The checksum of what was read since the last start.
    sum: Xxh3Default,
}

impl<R: Read> Reader<R> {
    fn of(from: R) -> Self {
        Self {
            from,
            at: 0,
            sum: Xxh3Default::new(),
        }
    }

    /// The number of the next batch, if that is whole.
    fn batch(&mut self) -> io::Result<Result<u64, Broken>> {
        let Some(Entry::Start { entries, number }) = self.entry()? else {
            return Ok(Err(Broken::Unreadable));
        };
        self.sum.reset();
        let mut found = 0;
        loop {
            match self.entry()? {
                Some(Entry::Change) => found += 1,
                Some(Entry::End { is_sum_right }) => {
                    return Ok(match (is_sum_right, found == entries) {
                        (true, true) => Ok(number),
                        (false, _) => Err(Broken::Sum),
                        (_, false) => Err(Broken::Entries),
                    });
                }
                Some(Entry::Start { .. }) | None => return Ok(Err(Broken::Unreadable)),
            }
        }
    }

    /// The next entry; `None`: what follows is none.
    fn entry(&mut self) -> io::Result<Option<Entry>> {
        match self.try_entry() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            entry => entry,
        }
    }

    fn try_entry(&mut self) -> io::Result<Option<Entry>> {
        let sum_before = self.sum.digest();
        let [tag] = self.bytes()?;
        let entry = match tag {
            1 => Entry::Start {
                entries: u32::from_le_bytes(self.bytes()?),
                number: u64::from_le_bytes(self.bytes()?),
            },
            2 => {
                let [kind, compression] = self.bytes()?;
                // Values, and two ways to remove; plain, or compressed by LZ4.
                if !matches!(kind, 0..=2) || compression > 1 {
                    return Ok(None);
                }
                let _keyspace: [u8; 8] = self.bytes()?;
                let key = u16::from_le_bytes(self.bytes()?);
                let _uncompressed: [u8; 4] = self.bytes()?;
                let value = u32::from_le_bytes(self.bytes()?);
                self.skip(u64::from(key) + u64::from(value))?;
                Entry::Change
            }
            3 => {
                let sum = u64::from_le_bytes(self.bytes()?);
                if self.bytes()? != TRAILER {
                    return Ok(None);
                }
                Entry::End {
                    is_sum_right: sum == sum_before,
                }
            }
            4 => {
                let _keyspace: [u8; 8] = self.bytes()?;
                Entry::Change
            }
            _ => return Ok(None),
        };
        Ok(Some(entry))
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes)?;
        self.sum.update(&bytes);
        self.at += N as u64;
        Ok(bytes)
    }

    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        let mut chunk = [0; 4096];
        while count > 0 {
            let length = usize::try_from(count).map_or(chunk.len(), |count| count.min(chunk.len()));
            let chunk = &mut chunk[..length];
            self.from.read_exact(chunk)?;
            self.sum.update(chunk);
            self.at += length as u64;
            count -= length as u64;
        }
        Ok(())
    }
}

const ZEROS: [u8; 4096] = [0; 4096];

/// Whether nothing was written to a journal.
fn is_blank(path: &Path) -> io::Result<bool> {
    is_blank_from(&mut File::open(path)?, 0)
}

/// Whether nothing was written from `at` on.
fn is_blank_from(file: &mut File, at: u64) -> io::Result<bool> {
    file.seek(SeekFrom::Start(at))?;
    let mut chunk = ZEROS;
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(true),
            read if chunk[..read] != ZEROS[..read] => return Ok(false),
            _ => {}
        }
    }
}
