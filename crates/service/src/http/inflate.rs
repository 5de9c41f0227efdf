//! Inflates a body that has arrived whole: gzip with all its members, Brotli, zstd with all its frames. Bytes that follow
//! the end of the coded data are malformed, never ignored: they would be events that are answered and lost.
//!
//! A decoder exists only while it works. The window of a begun body would cost up to 16 MiB for each client that sends
//! its first bytes and waits.

use std::io::{self, Read};

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use flate2::bufread::MultiGzDecoder;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use zstd::stream::read::Decoder as ZstdDecoder;

use crate::net::{MemoryBudget, MemoryPermit};

/// Decoders at work in the process. With the largest windows (16 MiB for Brotli) they take 128 MiB.
static DECODERS: Semaphore = Semaphore::const_new(8);
/// A decoder lets other tasks run after this many inflated bytes.
const PIECE: usize = 64 << 10;
/// The largest zstd window that a content coding may use: 8 MiB (RFC 9659).
const ZSTD_WINDOW_LOG: u32 = 23;

/// A supported content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Brotli,
    Zstd,
}

/// Why a body does not decode from its coding or its charset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// Not in its coding or charset, incomplete, or followed by other bytes.
    Malformed,
    /// Longer than the bound.
    TooLarge,
    /// The memory budget has less left.
    NoMemory,
}

impl Coding {
    /// The coding of this name. Names are compared in lower case only, as clients send them.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "gzip" => Some(Self::Gzip),
            "br" => Some(Self::Brotli),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    fn decoder(self, coded: &[u8]) -> io::Result<Box<dyn Read + Send + '_>> {
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(coded)),
            Self::Brotli => Box::new(BrotliDecoder::new(coded)),
            Self::Zstd => {
                let mut decoder = ZstdDecoder::with_buffer(coded)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }

    /// Inflates `coded` to at most `max` bytes, which are taken from `memory` before they are allocated.
    pub(super) async fn inflate(
        self,
        coded: &[u8],
        max: usize,
        memory: &MemoryBudget,
    ) -> Result<(Vec<u8>, Option<MemoryPermit>), DecodeError> {
        let _permit = DECODERS.acquire().await;
        let mut decoder = self.decoder(coded).map_err(|_| DecodeError::Malformed)?;
        let (mut inflated, mut permit) = (Vec::new(), None);
        loop {
            let begin = inflated.len();
            // One byte more than the bound shows that the body is longer.
            let piece = PIECE.min(max - begin + 1);
            grow(&mut inflated, piece, max + 1, memory, &mut permit)?;
            inflated.resize(begin + piece, 0);
            let read = decoder.read(&mut inflated[begin..]).map_err(|_| DecodeError::Malformed)?;
            inflated.truncate(begin + read);
            if read == 0 {
                return Ok((inflated, permit));
            }
            if inflated.len() > max {
                return Err(DecodeError::TooLarge);
            }
            yield_now().await;
        }
    }
}

/// Makes room for `more` bytes: doubles the capacity, to `max` bytes at most, and takes the growth from the budget.
pub(super) fn grow(
    bytes: &mut Vec<u8>,
    more: usize,
    max: usize,
    memory: &MemoryBudget,
    permit: &mut Option<MemoryPermit>,
) -> Result<(), DecodeError> {
    let (needed, capacity) = (bytes.len() + more, bytes.capacity());
    if needed <= capacity {
        return Ok(());
    }
    let target = needed.max(capacity * 2).min(max);
    let growth = memory.try_acquire(target - capacity).ok_or(DecodeError::NoMemory)?;
    match permit {
        None => *permit = Some(growth),
        Some(permit) => permit.merge(growth),
    }
    bytes.reserve_exact(target - bytes.len());
    Ok(())
}

/// Reads Brotli that must end where its input ends.
struct BrotliDecoder<'a> {
    coded: &'a [u8],
    taken: usize,
    inflated: usize,
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
}

impl<'a> BrotliDecoder<'a> {
    fn new(coded: &'a [u8]) -> Self {
        let alloc = StandardAlloc::default;
        Self { coded, taken: 0, inflated: 0, state: Box::new(BrotliState::new(alloc(), alloc(), alloc())) }
    }
}

impl Read for BrotliDecoder<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let (mut unread, mut room, mut written) = (self.coded.len() - self.taken, out.len(), 0);
        let (taken, inflated, state) = (&mut self.taken, &mut self.inflated, &mut *self.state);
        match BrotliDecompressStream(&mut unread, taken, self.coded, &mut room, &mut written, out, inflated, state) {
            BrotliResult::NeedsMoreOutput => Ok(written),
            BrotliResult::ResultSuccess if unread == 0 => Ok(written),
            // Trailing bytes, an early end, or invalid data.
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn deflate(coding: Coding, plain: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Coding::Brotli => {
                let mut coded = Vec::new();
                brotli::CompressorWriter::new(&mut coded, 4096, 5, 22).write_all(plain).unwrap();
                coded
            }
            Coding::Zstd => zstd::stream::encode_all(plain, 3).unwrap(),
        }
    }

    async fn inflate(coding: Coding, coded: &[u8], max: usize) -> Result<Vec<u8>, DecodeError> {
        coding.inflate(coded, max, &MemoryBudget::new(1 << 20)).await.map(|(bytes, _)| bytes)
    }

    const CODINGS: [Coding; 3] = [Coding::Gzip, Coding::Brotli, Coding::Zstd];

    #[tokio::test]
    async fn a_body_inflates_whole_or_is_malformed() {
        let plain: Vec<u8> = (0..300_000_u32).flat_map(|n| (n / 7).to_le_bytes()).take(300_000).collect();
        for coding in CODINGS {
            let coded = deflate(coding, &plain);
            assert_eq!(inflate(coding, &coded, plain.len()).await.as_ref(), Ok(&plain), "{coding:?}");
            assert_eq!(inflate(coding, &coded, plain.len() - 1).await, Err(DecodeError::TooLarge), "{coding:?}");
            for cut in [0, 1, 3, coded.len() / 2, coded.len() - 1] {
                assert_eq!(
                    inflate(coding, &coded[..cut], 1 << 20).await,
                    Err(DecodeError::Malformed),
                    "{coding:?} {cut}"
                );
            }
            let trailing = [&coded[..], b"x"].concat();
            assert_eq!(inflate(coding, &trailing, 1 << 20).await, Err(DecodeError::Malformed), "{coding:?}");
            let little = MemoryBudget::new(100_000);
            assert_eq!(
                coding.inflate(&coded, 1 << 20, &little).await.map(drop),
                Err(DecodeError::NoMemory),
                "{coding:?}"
            );
            assert!(little.try_acquire(100_000).is_some(), "{coding:?} keeps memory");
        }
    }

    #[tokio::test]
    async fn members_and_frames_follow_each_other_within_the_bound() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let (first, second) = (deflate(coding, b"first\n"), deflate(coding, b"second\n"));
            let both = [&first[..], &second[..]].concat();
            assert_eq!(inflate(coding, &both, 13).await.as_deref(), Ok(&b"first\nsecond\n"[..]), "{coding:?}");
            assert_eq!(inflate(coding, &both, 12).await, Err(DecodeError::TooLarge), "{coding:?}");
            for cut in 1..second.len() {
                let cut = &both[..both.len() - cut];
                assert_eq!(inflate(coding, cut, 13).await, Err(DecodeError::Malformed), "{coding:?} {}", cut.len());
            }
        }
        // A second stream of Brotli is not part of the format.
        let both = [deflate(Coding::Brotli, b"first\n"), deflate(Coding::Brotli, b"second\n")].concat();
        assert_eq!(inflate(Coding::Brotli, &both, 13).await, Err(DecodeError::Malformed));
    }

    #[tokio::test]
    async fn a_window_above_8_mib_is_refused() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(24).unwrap();
        encoder.write_all(b"small").unwrap();
        let coded = encoder.finish().unwrap();
        assert_eq!(inflate(Coding::Zstd, &coded, 100).await, Err(DecodeError::Malformed));
    }
}
