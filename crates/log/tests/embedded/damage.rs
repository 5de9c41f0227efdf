//! Damaged data: the log opens with every record or is refused. It never loses a record silently.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use millrace_contracts::Topic;
use millrace_log::{EmbeddedConfig, LogError};
use rand::{Rng, SeedableRng};

use crate::support;

const RECORDS: u64 = 30_000;
const KEYS: u64 = 1_000;

/// A log with tables and an active journal that holds the newest records.
async fn make(directory: &Path) -> EmbeddedConfig {
    let config = support::config(directory);
    let log = support::open(&config);
    support::append(&log, Topic::EVENTS, 0..RECORDS).await;
    support::append_as(&log, Topic::STATE, 0..RECORDS / 3, |number| (number % KEYS).to_string()).await;
    support::append(&log, Topic::EVENTS, RECORDS..RECORDS + 700).await;
    config
}

/// Opens the log and reads everything: complete, or an error that names a file or keyspace.
fn verify(config: &EmbeddedConfig) -> Result<(), LogError> {
    let log = support::try_open(config)?;
    let events = support::read_all(&log, Topic::EVENTS, 0)?;
    assert_eq!(events.len() as u64, RECORDS + 700, "records are missing");
    for (number, (offset, key, value)) in (0..).zip(&events) {
        assert!(
            *offset == number && *key == number.to_string() && *value == support::value(number),
            "@{number} is wrong"
        );
    }
    let changes = support::read_all(&log, Topic::STATE, 0)?;
    let newest: BTreeMap<&str, &[u8]> = changes.iter().map(|(_, key, value)| (&**key, &**value)).collect();
    assert_eq!(newest.len() as u64, KEYS, "keys are lost");
    for (key, value) in newest {
        let number = RECORDS / 3 - KEYS + key.parse::<u64>().unwrap();
        assert_eq!(value, support::value(number), "the newest of {key} is lost");
    }
    Ok(())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { assert!(std::fs::copy(&path, &target).is_ok()) }
    }
}

/// Applies `damage` to each file of a copy in turn; returns how many copies were refused and how many were intact.
async fn damage_each(times: usize, damage: impl Fn(&Path, &mut rand::rngs::StdRng) -> bool) -> (usize, usize) {
    let directory = tempfile::tempdir().unwrap();
    let config = make(directory.path()).await;
    verify(&config).unwrap();
    let (mut refused, mut whole) = (0, 0);
    for (number, file) in files(&config.directory).iter().enumerate() {
        for time in 0..times {
            let seed = (number * 1_000 + time) as u64;
            let scratch = tempfile::tempdir().unwrap();
            let damaged = EmbeddedConfig { directory: scratch.path().join("data"), ..config.clone() };
            copy(&config.directory, &damaged.directory);
            let name = file.strip_prefix(&config.directory).unwrap();
            if !damage(&damaged.directory.join(name), &mut rand::rngs::StdRng::seed_from_u64(seed)) {
                continue;
            }
            let judged = std::panic::catch_unwind(|| verify(&damaged));
            match judged {
                Ok(Ok(())) => whole += 1,
                Ok(Err(LogError::Damaged(why) | LogError::Refused(why))) => {
                    // The error names a file, a keyspace or a record; of a table that exists, the file.
                    assert!(
                        why.detail.contains("data") || why.detail.contains("meta") || why.detail.contains("analytics."),
                        "{why}"
                    );
                    let table = name.components().any(|part| part.as_os_str() == "tables");
                    let there = damaged.directory.join(name).exists();
                    assert!(
                        !table || !there || why.detail.contains(name.to_str().unwrap()),
                        "{}: {why}",
                        name.display()
                    );
                    refused += 1;
                }
                Ok(Err(error)) => panic!("{} seed {seed}: {error:?}", name.display()),
                Err(panicked) => {
                    eprintln!("{} seed {seed}", name.display());
                    std::panic::resume_unwind(panicked)
                }
            }
        }
    }
    (refused, whole)
}

/// The end of the bytes that are not zero: a journal is preallocated.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

#[tokio::test]
async fn flipped_bits_never_lose_records_silently() {
    let (refused, whole) = damage_each(6, |path, random| {
        let mut bytes = std::fs::read(path).unwrap();
        let used = used(&bytes);
        if used == 0 {
            return false;
        }
        bytes[random.random_range(0..used)] ^= 1 << random.random_range(0..8);
        std::fs::write(path, bytes).unwrap();
        true
    })
    .await;
    assert!(refused > whole / 4, "{refused} refused, {whole} whole");
}

#[tokio::test]
async fn zeroed_blocks_never_lose_records_silently() {
    let (refused, _) = damage_each(4, |path, random| {
        let mut bytes = std::fs::read(path).unwrap();
        let used = used(&bytes);
        if used == 0 {
            return false;
        }
        let begin = random.random_range(0..used) / 4_096 * 4_096;
        let end = (begin + 4_096).min(bytes.len());
        bytes[begin..end].fill(0);
        std::fs::write(path, bytes).unwrap();
        true
    })
    .await;
    assert!(refused > 0);
}

#[tokio::test]
async fn a_missing_file_never_loses_records_silently() {
    let (refused, _) = damage_each(1, |path, _| std::fs::remove_file(path).is_ok()).await;
    assert!(refused > 0);
}

/// One bit of an old journal, followed by intact newer ones: the newest commit is present, older records are not.
#[tokio::test]
async fn a_damaged_sealed_journal_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let config = support::config(directory.path());
    let log = support::open(&config);
    // Flushing the events rotates the journals; the memtables of the other topics retain the old ones.
    support::append(&log, Topic::STATE, 0..100).await;
    let large = vec![7; 1 << 20];
    for _ in 0..70 {
        let record = millrace_log::NewRecord { topic: Topic::EVENTS, partition: 0, key: b"k", value: &large };
        assert!(matches!(log.append(&[record]).await[0], millrace_log::Outcome::Acknowledged(_)));
    }
    drop(log);
    let journals: Vec<PathBuf> =
        files(&config.directory).into_iter().filter(|path| path.extension().is_some_and(|e| e == "jnl")).collect();
    assert!(journals.len() > 1, "no journal was sealed");
    let sealed = &journals[0];
    let whole = std::fs::read(sealed).unwrap();
    for place in [20, 5_000, used(&whole) - 3] {
        let mut bytes = whole.clone();
        bytes[place] ^= 16;
        std::fs::write(sealed, &bytes).unwrap();
        let LogError::Damaged(why) = support::try_open(&config).unwrap_err() else { panic!("not damaged") };
        assert!(why.detail.contains(sealed.to_str().unwrap()) && why.detail.contains("sealed"), "{why}");
    }
    std::fs::write(sealed, &whole).unwrap();
    let log = support::open(&config);
    assert_eq!(support::read_all(&log, Topic::STATE, 0).unwrap().len(), 100);
}

#[tokio::test]
async fn a_damaged_journal_is_refused_by_name_and_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let config = make(directory.path()).await;
    let journal =
        files(&config.directory).into_iter().find(|path| path.extension().is_some_and(|e| e == "jnl")).unwrap();
    let mut bytes = std::fs::read(&journal).unwrap();
    // The newest records too: the record of their end would be lost with them.
    for place in [used(&bytes) / 2, used(&bytes) - 20_000] {
        bytes[place] ^= 4;
        std::fs::write(&journal, &bytes).unwrap();
        for _ in 0..2 {
            let LogError::Damaged(why) = support::try_open(&config).unwrap_err() else { panic!("not damaged") };
            assert!(why.detail.contains(journal.to_str().unwrap()) && why.detail.contains("commits"), "{why}");
            assert!(std::fs::read(&journal).unwrap() == bytes, "the journal was changed");
        }
        bytes[place] ^= 4;
    }
    std::fs::write(&journal, &bytes).unwrap();
    verify(&config).unwrap();
}

/// They look like those of a first opening that was interrupted, which may be deleted.
#[tokio::test]
async fn records_without_the_guards_files_are_refused_and_not_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let config = make(directory.path()).await;
    let aside = tempfile::tempdir().unwrap();
    for name in ["version", "synced"] {
        std::fs::rename(config.directory.join(name), aside.path().join(name)).unwrap();
    }
    let before = files(&config.directory);
    for _ in 0..2 {
        let LogError::Damaged(why) = support::try_open(&config).unwrap_err() else { panic!("not damaged") };
        assert!(why.detail.contains("version is missing, and there are records"), "{why}");
        assert_eq!(files(&config.directory), before);
    }
    for name in ["version", "synced"] {
        std::fs::copy(aside.path().join(name), config.directory.join(name)).unwrap();
    }
    verify(&config).unwrap();
}

/// The keyspaces of read models are listed from the opening after their creation.
#[tokio::test]
async fn a_damaged_read_model_is_refused_by_name_and_a_lost_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let config = make(directory.path()).await;
    let open = || millrace_log::EmbeddedLog::open(config.clone(), millrace_contracts::Names::default());
    let view = |log: &millrace_log::EmbeddedLog| {
        let view = log.database().keyspace("view.test", Default::default).unwrap();
        view.insert("key", "value").unwrap();
        view.path().to_owned()
    };
    let folder = view(&open().unwrap());
    drop(open().unwrap());
    let manifest = files(&folder).into_iter().find(|path| path.file_name().unwrap() == "v0").unwrap();
    let whole = std::fs::read(&manifest).unwrap();
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 4;
    std::fs::write(&manifest, bytes).unwrap();
    let LogError::Damaged(why) = open().unwrap_err() else { panic!("not damaged") };
    assert!(why.detail.contains(manifest.to_str().unwrap()), "{why}");
    std::fs::write(&manifest, whole).unwrap();
    std::fs::remove_file(folder.join("current")).unwrap();
    verify(&config).unwrap();
}
