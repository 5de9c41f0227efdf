//! What a file is, and the event ids made of it.
//!
//! The identity is a hash of all of the content (and of nothing else: a file may be renamed or moved), since a corrected
//! copy of a file has its beginning and often its size. An event id is `{16 hex digits}-{line}`: the digits are made of the
//! content and a salt, which is zero until `--again` asks for other ids. So a line that is sent a second time, after a lost
//! answer or a kill, is known to the processor by its id. **Do not change** how ids are made: an import that was begun by
//! one version and is resumed by another would count its last batches twice.

use std::fs::File;
use std::io::{Read as _, Seek as _};

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

const PIECE: usize = 1 << 20;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// XXH3 of the content.
    pub(super) hash: u128,
    /// Bytes.
    pub(super) size: u64,
}

impl Identity {
    /// Reads all of a file, and goes back to its beginning.
    pub(super) fn of(file: &mut File) -> std::io::Result<Self> {
        let (mut hasher, mut size, mut piece) = (Xxh3::new(), 0, vec![0; PIECE]);
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => {
                    hasher.update(&piece[..read]);
                    size += read as u64;
                }
            }
        }
        file.rewind()?;
        Ok(Self { hash: hasher.digest128(), size })
    }
}

/// What the ids of a content's lines begin with.
pub(super) fn ids(hash: u128, salt: u64) -> String {
    format!("{:016x}", xxh3_64_with_seed(&hash.to_be_bytes(), salt))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_content_decides_and_nothing_else() {
        let of = |content: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(content).unwrap();
            file.rewind().unwrap();
            let identity = Identity::of(&mut file).unwrap();
            let mut again = Vec::new();
            file.read_to_end(&mut again).unwrap();
            assert_eq!((identity.size, &*again), (content.len() as u64, content), "the file stands at its beginning");
            identity
        };
        let long = vec![b'x'; 3 * PIECE + 1];
        let mut changed = long.clone();
        changed[2 * PIECE] = b'y';
        assert_eq!(of(&long), of(&long));
        assert_ne!(of(&long), of(&changed), "same size, same beginning, same end");
        assert_ne!(of(b""), of(b"x"));
    }

    #[test]
    fn ids_are_pinned() {
        assert_eq!(ids(1, 0), PINNED.0);
        assert_eq!(ids(1, 7), PINNED.1);
    }

    const PINNED: (&str, &str) = ("4152418f75dd93bb", "fc886ce1cbad36f3");
}
