//! The audit log of a process: records go to the topic `audit`.

use std::net::SocketAddr;

use millrace_contracts::Topic;
use millrace_log::{Log, NewRecord, Outcome};
use millrace_service::audit::{Audit, AuditSink};

use crate::settings::Settings;

/// Sends the records of a process to its log.
pub(crate) fn attach(audit: &Audit, log: &Log, settings: &Settings, admin: SocketAddr) {
    audit.attach(settings.instance(admin), sink(log.clone()));
}

/// The audit log of a tool, which has the log itself.
pub(crate) fn of_tool(log: &Log) -> Audit {
    let audit = Audit::default();
    audit.attach("tool".into(), sink(log.clone()));
    audit
}

/// The principal of a tool: the user that runs it.
pub(crate) fn operator() -> String {
    format!("os:{}", rustix::process::getuid().as_raw())
}

fn sink(log: Log) -> AuditSink {
    // Through the queue of the log, whose bounds are those of the audit log.
    Box::new(move |record| {
        let mut value = Vec::new();
        record.encode(&mut value);
        let record = NewRecord { topic: Topic::AUDIT, partition: 0, key: record.principal.as_bytes(), value: &value };
        let receipts = log.append_replicated(&[record]);
        Box::pin(async move { matches!(receipts.await[..], [Outcome::Acknowledged(_)]) })
    })
}
