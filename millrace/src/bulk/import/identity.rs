//! The identity of a file, and the event ids derived from it.
//!
//! The identity is a hash of the whole content (and of nothing else: a file may be renamed or moved), since a corrected copy of a
//! file has the same beginning and often the same size. An event id is `{16 hex digits}-{line}`: the digits derive from the
//! content and a salt, which is zero except with `--again`. So the processor recognizes a resent line, after a lost response or
//! a kill, by its id. **Do not change** the derivation: an import that one version starts and another resumes would count its
//! last batches twice.

use std::fs::File;
use std::io::{Read as _, Seek as _};

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

const PIECE: usize = 1 << 20;

/// The identity of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// XXH3 of the content.
    pub(super) hash: u128,
    /// Bytes.
    pub(super) size: u64,
}

impl Identity {
    /// Reads the whole file, then rewinds it.
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

/// The prefix of the event ids of a content.
pub(super) fn ids(hash: u128, salt: u64) -> String {
    format!("{:016x}", xxh3_64_with_seed(&hash.to_be_bytes(), salt))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn depends_on_the_content_only() {
        let of = |content: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(content).unwrap();
            file.rewind().unwrap();
            let identity = Identity::of(&mut file).unwrap();
            let mut again = Vec::new();
            file.read_to_end(&mut again).unwrap();
            assert_eq!((identity.size, &*again), (content.len() as u64, content), "the file is rewound");
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
