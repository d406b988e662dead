//! The store's tables, as far as it can be said without it which file is damaged: it does not name it, and does not look
//! at the checksum of the list of its tables.
//!
//! Of each keyspace, `current` names the list that holds (`v` and a number) and has its checksum; the list names the
//! tables and has theirs. Numbers are little-endian.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use super::OpenError;

const KEYSPACES: [&str; 3] = ["keyspaces/0", "keyspaces/1", "keyspaces/2"];

/// A table that must be there.
struct Table {
    /// Below the data directory.
    name: PathBuf,
    sum: u128,
}

/// Which list of tables in `directory` is damaged or lacks a table, if one does.
pub(super) fn damaged_list(directory: &Path) -> Option<String> {
    KEYSPACES
        .iter()
        .find_map(|keyspace| listed(directory, keyspace).err())
}

/// What the store found damaged in `directory`, with the file if it is a table. Reads all of
/// them, until one is damaged.
pub(super) fn named(directory: &Path, error: OpenError) -> OpenError {
    match error {
        OpenError::Damaged(what) => OpenError::Damaged(match damaged_table(directory) {
            Some(table) => format!("{table} ({what})"),
            None => what,
        }),
        other => other,
    }
}

/// Which table in `directory` is damaged, if one is.
fn damaged_table(directory: &Path) -> Option<String> {
    let listed = KEYSPACES
        .iter()
        .flat_map(|keyspace| listed(directory, keyspace));
    for table in listed.flatten() {
        let name = table.name.display();
        match sum(&directory.join(&table.name)) {
            Ok(sum) if sum == table.sum => {}
            Ok(_) => return Some(format!("its table {name} is damaged")),
            Err(error) => return Some(format!("its table {name} cannot be read: {error}")),
        }
    }
    None
}

/// The tables of a keyspace, or what is wrong with the list of them.
fn listed(directory: &Path, keyspace: &str) -> Result<Vec<Table>, String> {
    let current = directory.join(keyspace).join("current");
    let current = std::fs::read(current).unwrap_or_default();
    let parts = current.split_first_chunk::<8>();
    let parts = parts.and_then(|(id, rest)| Some((id, rest.first_chunk::<16>()?)));
    let (id, sum) = parts.ok_or_else(|| format!("its file {keyspace}/current is damaged"))?;
    let list = format!("{keyspace}/v{}", u64::from_le_bytes(*id));
    let path = directory.join(&list);
    let bytes = std::fs::read(&path).map_err(|error| {
        format!("its file {list} (by {keyspace}/current) cannot be read: {error}")
    })?;
    let damaged = || format!("its file {list} (or {keyspace}/current) is damaged");
    if xxh3_128(&bytes) != u128::from_le_bytes(*sum) {
        return Err(damaged());
    }
    let read = sfa::Reader::new(&path).map_err(|_| damaged())?;
    let section = read.toc().section(b"tables").ok_or_else(damaged)?;
    let start = usize::try_from(section.pos()).map_err(|_| damaged())?;
    let tables = bytes.get(start..).ok_or_else(damaged)?;
    let tables = tables_of(tables).map_err(|_| damaged())?;
    let tables = tables.into_iter().map(|(id, sum)| {
        let name = Path::new(keyspace).join("tables").join(id.to_string());
        match claims_too_much(&directory.join(&name)) {
            Ok(true) => Err(format!("its table {} is damaged", name.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(format!("its table {} is missing", name.display()))
            }
            // What keeps it from being read now is the store's to tell.
            Ok(false) | Err(_) => Ok(Table { name, sum }),
        }
    });
    tables.collect()
}

/// Whether a table says that it has more sections than it has room for: the store would make room for them before it
/// looks at their checksum, and end the process.
///
/// Its last 38 bytes end with where the list of its sections begins and how long that is, 8 bytes each. The list begins
/// with 4 bytes that never change and the number of sections, each of which takes 18 bytes and its name.
fn claims_too_much(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let number_at = |file: &mut File, at| -> io::Result<[u8; 8]> {
        let mut number = [0; 8];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut number).map(|()| number)
    };
    let Some(at) = length.checked_sub(16) else {
        return Ok(false);
    };
    let list = u64::from_le_bytes(number_at(&mut file, at)?);
    let Some(room) = length.checked_sub(list.saturating_add(8)) else {
        return Ok(false);
    };
    let [_, _, _, _, number @ ..] = number_at(&mut file, list)?;
    Ok(u64::from(u32::from_le_bytes(number)) > room / 18)
}

/// The numbers of the tables in a list, and their checksums.
fn tables_of(mut list: &[u8]) -> io::Result<Vec<(u64, u128)>> {
    let mut tables = Vec::new();
    let [levels] = bytes(&mut list)?;
    for _ in 0..levels {
        let [runs] = bytes(&mut list)?;
        for _ in 0..runs {
            for _ in 0..u32::from_le_bytes(bytes(&mut list)?) {
                let id = u64::from_le_bytes(bytes(&mut list)?);
                let [_kind_of_sum] = bytes(&mut list)?;
                tables.push((id, u128::from_le_bytes(bytes(&mut list)?)));
                let _added_to_all_numbers: [u8; 8] = bytes(&mut list)?;
            }
        }
    }
    Ok(tables)
}

fn bytes<const N: usize>(from: &mut &[u8]) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The checksum of a file.
fn sum(path: &Path) -> io::Result<u128> {
    let (mut file, mut sum) = (File::open(path)?, Xxh3Default::new());
    let mut chunk = vec![0; 1 << 16];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(sum.digest128()),
            read => sum.update(&chunk[..read]),
        }
    }
}
