//! The processes of Millrace on this machine, their ports, and the clock.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use millrace_service::auth::ApiKey;
use tokio::net::TcpListener;

use super::Finding;
use crate::inspect::{Remote, RemoteError};
use crate::settings::{Engine, Settings};

/// 2026-01-01: a correct clock is later than the first version of this program.
const FIRST_VERSION_MS: u128 = 1_767_225_600_000;

/// Whether a process responds on `command.admin`; with the embedded engine it has the directory open.
pub(super) async fn examine(
    settings: &Settings,
    key: Option<&ApiKey>,
    report: &mut (dyn FnMut(Finding) + Send),
) -> bool {
    report(clock());
    let mut admins = vec![("command.admin", settings.command.admin)];
    let mut publics = vec![("command.listen", settings.command.listen), ("query.listen", settings.query.listen)];
    let tcp = &settings.command.tcp;
    publics.extend(tcp.enabled.then_some(("command.tcp.listen", tcp.listen)));
    if settings.engine == Engine::Kafka {
        admins.extend([
            ("query.admin", settings.query.admin),
            ("processor.admin", settings.processor.admin),
            ("materializer.admin", settings.materializer.admin),
            ("delivery.admin", settings.delivery.admin),
        ]);
        publics.push(("delivery.listen", settings.delivery.listen));
    }
    let mut running = Vec::new();
    for (setting, address) in admins {
        match Remote::at(address, key).probe("/readyz").await {
            Ok((200, _)) => {
                running.push(setting);
                report(Finding::ok(setting, format!("a process responds on {address} and is ready")));
            }
            Ok((503, why)) => {
                running.push(setting);
                let why: String = why.chars().take(500).collect();
                report(Finding::warn(
                    setting,
                    format!("a process responds on {address} and is not ready: {why}"),
                    "see its log",
                ));
            }
            Ok((status, _)) => report(taken(setting, address, &format!("/readyz returns {status}"))),
            Err(RemoteError::NotRunning(_)) => publics.push((setting, address)),
            Err(e) => report(taken(setting, address, &e.to_string())),
        }
    }
    if running.is_empty() {
        report(Finding::ok("process", "none is running here"));
        for (key, address) in publics {
            report(port(key, address).await);
        }
    }
    running.contains(&"command.admin")
}

async fn port(key: &str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address).await {
        Ok(_) => Finding::ok(key, format!("{address} is free")),
        Err(e) => taken(key, address, &e.to_string()),
    }
}

fn taken(key: &str, address: SocketAddr, found: &str) -> Finding {
    Finding::fail(key, format!("{address}: {found}"), format!("stop the listener, or set {key} to another address"))
}

fn clock() -> Finding {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(now) if now.as_millis() > FIRST_VERSION_MS => Finding::ok("clock", "plausible"),
        _ => Finding::fail(
            "clock",
            "it is before 2026",
            "set the clock: the service refuses current events as too far ahead",
        ),
    }
}
