//! `millrace import`: a file's events into the log.

use std::process::ExitCode;

use super::load::{listening, random};
use super::say;
use crate::bulk::import::{Input, Plan, Stop, look, run as run_import};
use crate::cli;
use crate::settings::Settings;

/// Some lines came to nothing.
const EXIT_SOME: u8 = 1;
/// It could not go on.
const EXIT_STOPPED: u8 = 2;

/// Imports, or only looks.
pub(crate) async fn run(options: cli::Import, settings: &Settings) -> ExitCode {
    let json = options.json;
    let (whole, ended) = match Input::new(&options.file, options.format) {
        Err(stop) => (false, Err(stop.into())),
        Ok(input) if options.dry_run => dry(&input, json),
        Ok(input) => match plan(options, input, settings) {
            Err(e) => (false, Err(e)),
            Ok(plan) => {
                let (report, ended) = run_import(plan).await;
                if let Some(report) = &report {
                    say(&if json { report.json().to_string() } else { report.to_string() });
                }
                (report.is_some_and(|report| report.is_whole()), ended.map_err(Into::into))
            }
        },
    };
    match (ended, whole) {
        (Ok(()), true) => ExitCode::SUCCESS,
        (Ok(()), false) => ExitCode::from(EXIT_SOME),
        (Err(e), _) => {
            eprintln!("millrace: {e:#}");
            ExitCode::from(EXIT_STOPPED)
        }
    }
}

fn dry(input: &Input, json: bool) -> (bool, anyhow::Result<()>) {
    let looked = tokio::task::block_in_place(|| {
        look(input, |line| {
            if json {
                eprintln!("{line}");
            } else {
                say(line);
            }
        })
    });
    match looked {
        Ok((events, bad)) => {
            say(&if json {
                serde_json::json!({"events": events, "bad": bad}).to_string()
            } else {
                format!("{events} events, {bad} lines are no events; nothing was sent")
            });
            (bad == 0, Ok(()))
        }
        Err(stop) => (false, Err(Stop::into(stop))),
    }
}

fn plan(options: cli::Import, input: Input, settings: &Settings) -> anyhow::Result<Plan> {
    let commands = if options.command.is_empty() {
        vec![listening("command.listen", settings.command.listen)?]
    } else {
        options.command
    };
    let cli::Import { state, again, connections, batch, timeout, patience, .. } = options;
    let (connections, batch) = (connections as usize, batch as usize);
    // Zero is the salt of a file's first import.
    let salt = random().max(1);
    Ok(Plan { input, state, again, salt, commands, connections, batch, timeout, patience })
}
