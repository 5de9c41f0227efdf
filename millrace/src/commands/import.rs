//! `millrace import`: sends the events of a file.

use std::process::ExitCode;

use crate::bulk::import::{Input, Plan, Stop, dry_run, run as run_import};
use crate::cli;
use crate::client::Target;
use crate::settings::Settings;
use crate::text::{plural, print_line};

/// Some lines were rejected.
const EXIT_REJECTS: u8 = 1;
/// The import stopped early.
const EXIT_STOPPED: u8 = 2;

/// Imports, or only checks.
pub(crate) async fn run(options: cli::Import, settings: &Settings) -> ExitCode {
    let json = options.json;
    let (whole, ended) = match Input::new(&options.file, options.format) {
        Err(stop) => (false, Err(stop)),
        Ok(input) if options.dry_run => check(&input, json),
        Ok(input) => {
            let plan = match plan(options, input, settings) {
                Ok(plan) => plan,
                Err(error) => {
                    eprintln!("millrace: {}", crate::text::chain(&error));
                    return ExitCode::from(EXIT_STOPPED);
                }
            };
            let (report, ended) = run_import(plan).await;
            if let Some(report) = &report {
                print_line(&if json { report.json().to_string() } else { report.to_string() });
            }
            (report.is_some_and(|report| report.is_whole()), ended)
        }
    };
    match (ended, whole) {
        (Ok(()), true) => ExitCode::SUCCESS,
        (Ok(()), false) => ExitCode::from(EXIT_REJECTS),
        (Err(e), _) => {
            eprintln!("millrace: {e}");
            ExitCode::from(EXIT_STOPPED)
        }
    }
}

fn check(input: &Input, json: bool) -> (bool, Result<(), Stop>) {
    let checked = tokio::task::block_in_place(|| {
        dry_run(input, |line| {
            if json {
                eprintln!("{line}");
            } else {
                print_line(line);
            }
        })
    });
    match checked {
        Ok((events, bad)) => {
            print_line(&if json {
                serde_json::json!({"events": events, "bad": bad}).to_string()
            } else {
                format!("{}, {} invalid; nothing was sent", plural(events, "event"), plural(bad, "line"))
            });
            (bad == 0, Ok(()))
        }
        Err(stop) => (false, Err(stop)),
    }
}

fn plan(options: cli::Import, input: Input, settings: &Settings) -> anyhow::Result<Plan> {
    let access = options.key.access()?;
    let commands = if options.command.is_empty() {
        vec![Target::of_listener(settings.command.listen, settings.tls.is_on(), &access)]
    } else {
        options.command.into_iter().map(|target| target.with(&access)).collect::<Result<_, _>>()?
    };
    let cli::Import { state, again, connections, batch, timeout, patience, .. } = options;
    let (connections, batch) = (connections as usize, batch as usize);
    // Zero is the salt of a file's first import.
    let salt = fastrand::u64(1..);
    Ok(Plan { input, state, again, salt, commands, connections, batch, timeout, patience })
}
