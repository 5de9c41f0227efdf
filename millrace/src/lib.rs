//! The `millrace` command line: one subcommand for each service, `up` for all of them in one process, and the tools.
//!
//! Loads the settings in layers and passes them, validated, to the services, each of which has its own crate. This crate contains
//! what needs several of them: startup, inspection of the log, and the tools, which are HTTP clients of the services.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod audit;
mod bulk;
mod cli;
mod client;
mod commands;
mod doctor;
mod inspect;
mod load;
mod messaging;
mod send;
mod settings;
mod start;
mod text;
mod threads;
mod views;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};
use messaging::Failure;
use millrace_service::{FileError, config};
use settings::Settings;
use start::Start;

/// Exit code of a `send` or `verify-webhook` that cannot begin: its arguments, files or server are not what they should be.
const EXIT_USAGE: u8 = 2;

/// Exit code after no answer for as long as it was tried: the same again may succeed (`EX_TEMPFAIL` of sysexits).
const EXIT_UNAVAILABLE: u8 = 75;

/// Exit code of invalid settings (`EX_CONFIG` of sysexits).
const EXIT_CONFIG: u8 = 78;

/// Runs the program with the arguments and the environment of the process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // An error means that a provider is already installed, which can only be this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match cli.command {
        Command::Completions { shell } => {
            commands::completions::run(shell);
            ExitCode::SUCCESS
        }
        Command::Man { to } => ended(commands::man::run(to.as_deref())),
        Command::VerifyWebhook(options) => commands::verify_webhook::run(&options).unwrap_or_else(|e| {
            ended(Err(e));
            ExitCode::from(EXIT_USAGE)
        }),
        Command::CheckConfig(options) if options.print_default => {
            commands::check_config::print_default();
            ExitCode::SUCCESS
        }
        command => match config::environment().and_then(|environment| Settings::load(&cli.layers, environment)) {
            Ok(settings) => with_runtime(command, settings),
            Err(problems) => {
                for problem in &problems {
                    eprintln!("millrace: {problem}");
                }
                ExitCode::from(EXIT_CONFIG)
            }
        },
    }
}

fn with_runtime(command: Command, settings: Settings) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(run(command, settings));
            // A reader that blocks its thread must not keep the process alive.
            runtime.shutdown_background();
            code
        }
        Err(e) => ended(Err(anyhow::Error::new(e).context("the runtime cannot start"))),
    }
}

async fn run(command: Command, settings: Settings) -> ExitCode {
    if matches!(
        command,
        Command::Command | Command::Processor | Command::Materializer | Command::Query | Command::Delivery
    ) && settings.engine == settings::Engine::Embedded
    {
        eprintln!(
            "millrace: the embedded engine's directory belongs to one process: run `millrace up`, or set engine = \"kafka\""
        );
        return ExitCode::from(EXIT_CONFIG);
    }
    match command {
        Command::Up => Box::pin(service(settings, commands::up::run)).await,
        Command::Command => Box::pin(service(settings, commands::command::run)).await,
        Command::Processor => Box::pin(service(settings, commands::processor::run)).await,
        Command::Materializer => Box::pin(service(settings, commands::materializer::run)).await,
        Command::Query => Box::pin(service(settings, commands::query::run)).await,
        Command::Delivery => Box::pin(service(settings, commands::delivery::run)).await,
        Command::CheckConfig(_) => commands::check_config::run(&settings),
        Command::Keys { command } => ended(commands::keys::run(command, &settings)),
        Command::Doctor(options) => commands::doctor::run(&options, &settings).await,
        Command::Topics(options) => ended(commands::topics::run(options, settings).await),
        Command::Audit(options) => ended(commands::audit::run(options, settings).await),
        Command::Tail(options) => ended(commands::tail::run(options, settings).await),
        Command::Verify(options) => match commands::verify::run(options, &settings).await {
            Ok(code) => code,
            Err(e) => ended(Err(e)),
        },
        Command::Rebuild(options) => ended(commands::rebuild::run(options, &settings).await),
        Command::Load(options) => match commands::load::run(options, &settings).await {
            Ok(code) => code,
            Err(e) => ended(Err(e)),
        },
        Command::Topic { command } => called(commands::topic::run(command, &settings).await),
        Command::Subscription { command } => called(commands::subscription::run(command, &settings).await),
        Command::Publish(options) => called(commands::publish::run(options, &settings).await),
        Command::Consume(options) => called(commands::consume::run(options, &settings).await),
        Command::Send(options) => match commands::send::run(options, &settings).await {
            Ok(code) => code,
            Err(e) => {
                ended(Err(e));
                ExitCode::from(EXIT_USAGE)
            }
        },
        Command::Journal { command } => match commands::journal::run(command, &settings).await {
            Ok(code) => code,
            Err(e) => ended(Err(e)),
        },
        Command::Import(options) => commands::import::run(options, &settings).await,
        Command::Export(options) => commands::export::run(options, &settings).await,
        // They need no settings and end before they are loaded.
        Command::Completions { .. } | Command::Man { .. } | Command::VerifyWebhook(_) => ExitCode::SUCCESS,
    }
}

async fn service<F: Future<Output = anyhow::Result<()>>>(settings: Settings, run: impl FnOnce(Start) -> F) -> ExitCode {
    match Start::new(settings) {
        Ok(start) => ended(run(start).await),
        Err(e) => {
            let of_settings = e.downcast_ref::<FileError>().is_some();
            let code = ended(Err(e));
            if of_settings { ExitCode::from(EXIT_CONFIG) } else { code }
        }
    }
}

/// The exit code of a call to the service.
fn called(result: anyhow::Result<()>) -> ExitCode {
    let unavailable = result.as_ref().err().and_then(|error| error.downcast_ref()).is_some_and(Failure::is_temporary);
    let code = ended(result);
    if unavailable { ExitCode::from(EXIT_UNAVAILABLE) } else { code }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("millrace: {}", text::chain(&e));
            ExitCode::FAILURE
        }
    }
}
