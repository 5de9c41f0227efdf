//! The settings that follow from others: computed once, right after loading, so that no command computes them differently.

use std::net::SocketAddr;

use millrace_base::Span;
use millrace_command::Durability;
use millrace_log::AppendAcks;
use millrace_service::http::HttpLimits;

use super::{Engine, Settings};

/// The admin listener serves a scraper, probes and a person: far fewer connections than a public one.
const ADMIN_CONNECTIONS: usize = 256;

impl Settings {
    /// Fills in what follows from other settings.
    pub(super) fn derive(mut self) -> Self {
        // Both services accept the same timestamps.
        self.command.event_window = self.analytics;
        self.command.topics = self.topics.clone();
        self.processor.event_window = self.analytics;
        if self.engine == Engine::Embedded && self.processor.scratch_directory.as_os_str().is_empty() {
            self.processor.scratch_directory = self.embedded.directory.join("scratch");
        }
        if self.command.durability == Durability::Leader {
            self.kafka.append_acks = AppendAcks::Leader;
        }
        // Only a name that is stable over restarts lets a member resume its partitions.
        self.kafka.static_members = !self.instance.is_empty();
        self.link_sides();
        self
    }

    /// On loopback the other side is where its listener is. Beyond it only the operator knows what browsers see.
    fn link_sides(&mut self) {
        let (command, query) = (self.command.listen, self.query.listen);
        if !command.ip().is_loopback() || !query.ip().is_loopback() {
            return;
        }
        let scheme = if self.tls.is_on() { "https" } else { "http" };
        for (url, listen) in [(&mut self.command.query_url, query), (&mut self.query.command_url, command)] {
            if url.0.is_empty() {
                url.0 = format!("{scheme}://{listen}");
            }
        }
    }

    /// Whether calls of other processes to the coordinators are encrypted. On loopback they need not be, and a certificate has
    /// no name for it.
    pub(crate) fn encrypts_calls(&self) -> bool {
        self.tls.is_on() && !self.tls.terminated_upstream && !self.delivery.listen.ip().is_loopback()
    }

    /// The name of the process with this admin listener among the instances of its role: as configured, else host name and
    /// admin port, which are stable over restarts and unique.
    pub(crate) fn instance(&self, admin: SocketAddr) -> String {
        if !self.instance.is_empty() {
            return self.instance.clone();
        }
        let host = rustix::system::uname();
        format!("{}-{}", host.nodename().to_string_lossy(), admin.port())
    }

    /// The bounds of the admin listener. It drains within the shutdown, however short that is.
    pub(crate) fn admin_limits(&self) -> HttpLimits {
        let drain_timeout = Span(self.shutdown_grace.0 / 2).min(HttpLimits::default().drain_timeout);
        HttpLimits { drain_timeout, max_connections: ADMIN_CONNECTIONS, ..HttpLimits::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::*;

    #[test]
    fn instances_differ_by_their_admin_port() {
        let settings = load(&[]).unwrap();
        let (a, b) = (settings.instance(settings.command.admin), settings.instance(settings.query.admin));
        assert!(a.ends_with("-9081") && b.ends_with("-9082") && a[..a.len() - 5] == b[..b.len() - 5], "{a} {b}");
        assert_eq!(load(&["instance=blue-1"]).unwrap().instance(settings.command.admin), "blue-1");
    }

    #[test]
    fn sides_find_each_other_on_loopback_only() {
        let urls =
            |set: &[&str]| load(set).map(|settings| (settings.command.query_url.0, settings.query.command_url.0));
        assert_eq!(urls(&[]).unwrap(), ("http://127.0.0.1:8082".into(), "http://127.0.0.1:8081".into()));
        let open = ["auth.allow_off_beyond_loopback=true", "query.listen=0.0.0.0:8082"];
        assert_eq!(urls(&open).unwrap(), (String::new(), String::new()));
        let set = urls(&[open[0], open[1], "query.command_url=https://write.example"]).unwrap();
        assert_eq!(set.1, "https://write.example");
        assert!(urls(&["query.command_url=write.example"]).unwrap_err()[0].starts_with("query.command_url"));
    }

    #[test]
    fn only_named_instances_are_static_members() {
        assert!(!load(&["engine=kafka"]).unwrap().kafka.static_members);
        assert!(load(&["engine=kafka", "instance=blue"]).unwrap().kafka.static_members);
    }

    #[test]
    fn durability_decides_the_acks() {
        let acks = |durability| load(&["engine=kafka", durability]).unwrap().kafka.append_acks;
        assert_eq!(acks("command.durability=leader"), AppendAcks::Leader);
        assert_eq!(acks("command.durability=replicated"), AppendAcks::All);
        assert_eq!(acks("command.durability=cached"), AppendAcks::All);
    }

    #[test]
    fn scratch_files_of_the_embedded_engine_are_below_its_directory() {
        let scratch = |set: &[&str]| load(set).unwrap().processor.scratch_directory.display().to_string();
        assert_eq!(scratch(&["embedded.directory=here"]), "here/scratch");
        assert_eq!(scratch(&["processor.scratch_directory=there"]), "there");
        assert_eq!(scratch(&["engine=kafka"]), "");
    }

    #[test]
    fn command_and_processor_accept_the_same_timestamps() {
        let settings = load(&["analytics.future_tolerance=1m", "analytics.accept_from=2026-01-01T00:00:00Z"]).unwrap();
        assert_eq!(settings.analytics.accept_from_ms, 1_767_225_600_000);
        assert_eq!(settings.command.event_window, settings.analytics);
        assert_eq!(settings.processor.event_window, settings.analytics);
        for (value, part) in [("yesterday", "RFC 3339"), ("1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z or later")] {
            let problems = load(&[&format!("analytics.accept_from={value}")]).unwrap_err();
            assert!(
                problems[0].starts_with("analytics.accept_from (flag): ") && problems[0].contains(part),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn admin_listener_drains_before_the_shutdown_ends() {
        let drain = |grace: &str| {
            let sections = ["command", "command.tcp", "delivery", "query"];
            let [command, tcp, delivery, query] = &sections.map(|name| format!("{name}.limits.drain_timeout=1ms"));
            load(&[grace, command, tcp, delivery, query]).unwrap().admin_limits().drain_timeout
        };
        assert_eq!(drain("shutdown_grace=30s"), Span::from_secs(10));
        assert_eq!(drain("shutdown_grace=100ms"), Span::from_millis(50));
    }
}
