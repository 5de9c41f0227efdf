//! The embedded engine: its directory, the disk, and the topics.

use std::path::Path;

use millrace_base::Size;
use millrace_log::LogError;
use millrace_service::auth::ApiKey;

use super::{Finding, positions};
use crate::inspect::{Remote, TopicLine};
use crate::settings::Settings;
use crate::start::open_log;

/// Checks the directory, through the running process if there is one.
pub(super) async fn examine(
    settings: &Settings,
    key: Option<&ApiKey>,
    running: bool,
    report: &mut (dyn FnMut(Finding) + Send),
) {
    let directory = settings.embedded.directory.as_path();
    if !directory.is_dir() {
        let found = format!("{} does not exist yet", directory.display());
        report(Finding::warn("embedded.directory", found, "nothing, if it should be empty: `millrace up` creates it"));
        let parent = directory.ancestors().skip(1).find(|parent| parent.is_dir()).unwrap_or(Path::new("."));
        report(space(parent, settings.embedded.min_free_disk));
        return;
    }
    report(space(directory, settings.embedded.min_free_disk));
    if running {
        match Remote::at(settings.command.admin, key).topics().await {
            Ok(topics) => report(content(&topics)),
            Err(e) => report(Finding::fail("log", e.to_string(), "see the log of the running process")),
        }
        return;
    }
    match open_log(settings, &settings.names()).await {
        Ok(log) => {
            match log.describe().await {
                Ok(infos) => report(content(&infos.iter().map(TopicLine::from).collect::<Vec<_>>())),
                Err(e) => report(failed(&e)),
            }
            if let Some(finding) = positions::journal(&log, &settings.journal).await {
                report(finding);
            }
            log.close(settings.shutdown_grace.0).await;
        }
        Err(e) => report(failed(&e)),
    }
}

fn failed(error: &LogError) -> Finding {
    let advice = match error {
        LogError::Unavailable(_) => "retry; if it persists, check the disk and the permissions of the directory",
        LogError::Refused(_) => "stop the process that has the directory open, or change the setting in the message",
        LogError::Damaged(_) => {
            "do not delete anything: copy the directory, then restore a backup, or follow the message"
        }
    };
    Finding::fail("log", error.to_string(), advice)
}

fn content(topics: &[TopicLine]) -> Finding {
    let records = |topic: &TopicLine| topic.partitions.iter().map(|p| p.end - p.start.min(p.end)).sum::<u64>();
    let each: Vec<_> = topics.iter().map(|topic| format!("{} {}", topic.name, records(topic))).collect();
    Finding::ok("log", format!("opens; records: {}", each.join(", ")))
}

fn space(directory: &Path, min_free: Size) -> Finding {
    let what = "disk";
    let stat = match rustix::fs::statvfs(directory) {
        Ok(stat) => stat,
        Err(e) => {
            return Finding::fail(
                what,
                format!("{}: {e}", directory.display()),
                "set embedded.directory to a readable one",
            );
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let found = format!("{} MiB free below {}", free >> 20, directory.display());
    if free <= min_free.0 {
        return Finding::fail(what, found, format!("free some: the log refuses appends below {min_free}"));
    }
    if stat.f_bavail < stat.f_blocks / 20 {
        return Finding::warn(what, found, "free some: less than 5 % is left");
    }
    Finding::ok(what, found)
}
