//! `millrace send`: lines as messages over TCP, each acknowledged.

mod input;
mod report;
mod run;
mod window;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use run::SendOptions;

use crate::text::print_line;

/// Lines that are read ahead.
const READ_AHEAD: usize = 4_096;

/// Sends the lines of files; `-` is the standard input. Returns the exit code.
pub(crate) async fn send(options: SendOptions, files: Vec<PathBuf>, json: bool, quiet: bool) -> anyhow::Result<u8> {
    let bar = if quiet || json || !std::io::stderr().is_terminal() {
        ProgressBar::hidden()
    } else {
        ProgressBar::new_spinner()
    };
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let lines = input::read(files, READ_AHEAD);
    let warn = {
        let bar = bar.clone();
        Box::new(move |text: String| bar.suspend(|| eprintln!("millrace: {text}")))
    };
    let report = run::Sender::new(options, lines, warn)
        .run(|report| bar.set_message(format!("{} of {} acknowledged", report.acknowledged, report.messages)))
        .await?;
    bar.finish_and_clear();
    if json {
        print_line(&serde_json::to_string(&report)?);
    } else if !quiet || report.exit_code() != 0 {
        eprintln!("{report}");
    }
    Ok(report.exit_code())
}
