//! `millrace journal`: reads and checks the files of a journal, beside a running writer.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use millrace_contracts::Topic;
use millrace_log::GroupPosition;
use millrace_materializer::journal::{Entry, From, Journal, JournalError, JournalReader, role, verify};

use crate::cli::{self, JournalRange, JournalVerify, Place};
use crate::settings::Settings;
use crate::start::open_log;

/// Pause between two looks for more.
const FOLLOW_PAUSE: Duration = Duration::from_millis(100);
/// Records that `tail` begins with.
const TAIL: u64 = 10;

/// Runs the subcommand.
pub(crate) async fn run(command: cli::Journal, settings: &Settings) -> anyhow::Result<ExitCode> {
    let directory = |given: Option<PathBuf>| {
        let directory = given.unwrap_or_else(|| settings.journal.directory.clone());
        anyhow::ensure!(!directory.as_os_str().is_empty(), "no journal: set journal.directory, or give --directory");
        Ok(directory)
    };
    let printed = match command {
        cli::Journal::Cat(range) => {
            cat(&directory(range.directory.clone())?, &range, false).map(|()| ExitCode::SUCCESS)
        }
        cli::Journal::Tail(range) => {
            cat(&directory(range.directory.clone())?, &range, true).map(|()| ExitCode::SUCCESS)
        }
        cli::Journal::Adopt { from } => {
            adopt(&directory(None)?, from.is_some(), settings).await.map(|()| ExitCode::SUCCESS)
        }
        cli::Journal::Verify(JournalVerify { directory: given, json }) => check(&directory(given)?, json),
    };
    match printed {
        // A reader that has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            Ok(ExitCode::SUCCESS)
        }
        printed => printed,
    }
}

/// Begins a journal where the one of its name has come.
async fn adopt(directory: &std::path::Path, earliest: bool, settings: &Settings) -> anyhow::Result<()> {
    let log = open_log(settings, &settings.names()).await?;
    let (config, role, opened) = (settings.journal.clone(), role(&settings.journal.name), log.clone());
    let adopt = move || -> anyhow::Result<u64> {
        let group = log.group_position(&role, Topic::INTAKE_JOURNAL, 0)?;
        let next_offset = match group.filter(|_| !earliest) {
            Some(group) => group.next_offset,
            None if earliest => 0,
            None => anyhow::bail!("no journal of the name {} was written yet: nothing is to be adopted", config.name),
        };
        let position = Journal::adopt(&config, next_offset)?;
        let group = GroupPosition { next_offset, copy_id: position.journal_id };
        log.set_group_position(&role, Topic::INTAKE_JOURNAL, 0, group)?;
        Ok(next_offset)
    };
    let adopted = tokio::task::spawn_blocking(adopt).await?;
    opened.close(settings.shutdown_grace.0).await;
    let next_offset = adopted?;
    let begins = if earliest { "the earliest record".to_owned() } else { format!("record {next_offset}") };
    eprintln!("millrace: the journal in {} begins with {begins}", directory.display());
    Ok(())
}

fn cat(directory: &std::path::Path, range: &JournalRange, follow: bool) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let mut reader = match (range.from, follow) {
        (Some(Place::Record(record)), _) => JournalReader::open(directory, From::Record(record)),
        (Some(Place::TimeMs(ms)), _) => JournalReader::open(directory, From::Time(ms.saturating_mul(1_000))),
        (None, false) => JournalReader::open(directory, From::Start),
        (None, true) => JournalReader::open(directory, From::Start).and_then(|reader| {
            let from = reader.end().next_record.saturating_sub(TAIL);
            JournalReader::open(directory, From::Record(from))
        }),
    }?;
    let (mut entry, mut line) = (Entry::default(), Vec::new());
    loop {
        while let Some(number) = reader.next(&mut entry)? {
            let past = match range.until {
                None => false,
                Some(Place::Record(record)) => number >= record,
                Some(Place::TimeMs(ms)) => entry.time_us().is_some_and(|time_us| time_us >= ms.saturating_mul(1_000)),
            };
            if past {
                return Ok(out.flush()?);
            }
            line.clear();
            entry.write_text(&mut line);
            out.write_all(&line)?;
        }
        out.flush()?;
        if !follow {
            return Ok(());
        }
        while !reader.refresh()? {
            std::thread::sleep(FOLLOW_PAUSE);
        }
    }
}

fn check(directory: &std::path::Path, json: bool) -> anyhow::Result<ExitCode> {
    let found = match verify(directory) {
        Err(error @ JournalError::Damaged { .. }) => {
            eprintln!("millrace: {error}");
            return Ok(ExitCode::FAILURE);
        }
        found => found.context("the journal cannot be read")?,
    };
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&found)?)?;
    } else {
        write!(out, "{} records in {} segments, {} bytes", found.records, found.segments, found.bytes)?;
        match found.first_and_last {
            Some((first, last)) => writeln!(out, ": records {first} to {last}")?,
            None => writeln!(out)?,
        }
        if found.gap_count > 0 {
            writeln!(out, "{} gaps between the numbers, which are no error; the first:", found.gap_count)?;
        }
        for (first, last) in &found.gaps {
            writeln!(out, "  no record {first} to {last}")?;
        }
        for problem in &found.problems {
            writeln!(out, "{problem}")?;
        }
        match found.problem_count {
            0 => writeln!(out, "every checksum matches")?,
            problems => writeln!(out, "{problems} problems")?,
        }
    }
    Ok(if found.problem_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
