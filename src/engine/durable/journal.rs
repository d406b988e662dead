//! The store's journals, read before the store is opened. The store cuts off what it cannot read, makes a new journal
//! where there is none, and believes the numbers of batches, which no checksum covers: so they are looked at here, and
//! nothing is changed until it is known that a start goes on.
//!
//! A batch is a start (how many entries, and its number), its entries, and an end (their checksum, and four bytes that
//! never change). Numbers are little-endian. After the last batch comes nothing, or zeros.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use xxhash_rust::xxh3::Xxh3Default;

use super::{OpenError, recover::damaged};

/// The highest number that is plausible: a million batches a second take two thousand years to it. The store itself
/// panics at 2^63.
pub(super) const MOST_BATCHES: u64 = 1 << 56;

const TRAILER: [u8; 4] = *b"FJL\x03";

/// The journals of a directory, as far as they can be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Journals {
    /// Those that can be read, by their names, oldest first, and so many bytes of each.
    pub(super) readable: Vec<(String, u64)>,
    /// What is wrong with those, or behind them, and in which file.
    pub(super) fault: Option<String>,
    /// What a start cuts off: what follows the last whole batch of the last one, by its name and the first byte.
    pub(super) torn: Option<(String, u64)>,
}

impl Journals {
    /// Reads those of `directory`, up to the first fault.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        let ids = ids(directory)?;
        let mut journals = Self::default();
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else {
            journals.fault = Some("its journal is missing (a file such as 0.jnl)".into());
            return Ok(journals);
        };
        let mut newest = None;
        for id in *first..=*last {
            let name = format!("{id}.jnl");
            if !ids.contains(&id) {
                journals.fault = Some(format!("its journal {name} is missing"));
                break;
            }
            let (whole, end) = read(&directory.join(&name), &mut newest)?;
            let fault = match end {
                End::Blank => None,
                End::Torn if id == *last => {
                    journals.torn = Some((name.clone(), whole));
                    None
                }
                End::Torn => Some("a batch is not whole, and other journals follow"),
                End::Wrong(what) => Some(what),
            };
            journals.fault = fault.map(|what| format!("journal {name}, byte {whole}: {what}"));
            journals.readable.push((name, whole));
            if journals.fault.is_some() {
                break;
            }
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
            return Err(damaged(&fault));
        }
        if let Some((journal, byte)) = journals.torn {
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

/// What follows the whole batches of a journal.
enum End {
    /// Nothing was written there.
    Blank,
    /// What may be left of a writing that was cut short.
    Torn,
    /// Nothing of that kind.
    Wrong(&'static str),
}

/// Reads a journal whose batches are younger than `newest`: how long those are that are whole, and what follows.
fn read(path: &Path, newest: &mut Option<u64>) -> io::Result<(u64, End)> {
    let mut reader = Reader {
        from: BufReader::with_capacity(1 << 16, File::open(path)?),
        at: 0,
        sum: Xxh3Default::new(),
    };
    let mut whole = 0;
    loop {
        let wrong = match reader.batch()? {
            Batch::Whole(number) if is_after(number, *newest) => {
                (*newest, whole) = (Some(number), reader.at);
                continue;
            }
            Batch::Whole(_) => "a batch's number is out of order",
            Batch::Unreadable => {
                let is_blank = reader.is_blank_from(whole)?;
                return Ok((whole, if is_blank { End::Blank } else { End::Torn }));
            }
            // The machine may have ended while it wrote the last one, and have written its end first.
            Batch::Wrong(_) if reader.is_blank_from(reader.at)? => return Ok((whole, End::Torn)),
            Batch::Wrong(what) => what,
        };
        return Ok((whole, End::Wrong(wrong)));
    }
}

fn is_after(number: u64, newest: Option<u64>) -> bool {
    number < MOST_BATCHES && newest.is_none_or(|newest| newest < number)
}

enum Batch {
    /// It is whole, and has this number.
    Whole(u64),
    /// It has an end, and is not what was written.
    Wrong(&'static str),
    /// There is none, or it has no end.
    Unreadable,
}

enum Entry {
    Start { entries: u32, number: u64 },
    Change,
    End { is_sum_right: bool },
}

struct Reader {
    from: BufReader<File>,
    at: u64,
    /// The checksum of what was read since the last start.
    sum: Xxh3Default,
}

impl Reader {
    fn batch(&mut self) -> io::Result<Batch> {
        let Some(Entry::Start { entries, number }) = self.entry()? else {
            return Ok(Batch::Unreadable);
        };
        self.sum.reset();
        let mut found = 0;
        loop {
            match self.entry()? {
                Some(Entry::Change) => found += 1,
                Some(Entry::End { is_sum_right }) => {
                    return Ok(match (is_sum_right, found == entries) {
                        (true, true) => Batch::Whole(number),
                        (false, _) => Batch::Wrong("a batch's checksum is wrong"),
                        (_, false) => Batch::Wrong("a batch has not as many entries as it says"),
                    });
                }
                Some(Entry::Start { .. }) | None => return Ok(Batch::Unreadable),
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

    /// Whether nothing was written from `at` on.
    fn is_blank_from(&mut self, at: u64) -> io::Result<bool> {
        self.from.seek(SeekFrom::Start(at))?;
        let mut chunk = [0; 4096];
        loop {
            match self.from.read(&mut chunk)? {
                0 => return Ok(true),
                read if chunk[..read].iter().any(|byte| *byte != 0) => return Ok(false),
                _ => {}
            }
        }
    }
}
