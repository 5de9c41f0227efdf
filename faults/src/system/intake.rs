//! TCP intake: a listener of each command service behind a link of its own, and a journal of each materializer.

use std::net::SocketAddr;
use std::path::PathBuf;

use millrace_testkit::Proxy;

use super::{Engine, Setup, System, pair, port};

impl Setup {
    /// A system that takes messages over TCP. On the embedded engine the listener takes longer ones than the log.
    pub fn with_intake(engine: Engine) -> Self {
        let setup = Self { intake: true, ..Self::new(engine) };
        match engine {
            Engine::Embedded => {
                setup.set("command.tcp.max_message_bytes", &"128KiB").set("embedded.max_record_bytes", &"64KiB")
            }
            Engine::Kafka => setup,
        }
    }
}

impl System {
    /// The settings of one process, after its link is set up.
    pub(super) fn add_intake(
        &mut self,
        role: &str,
        name: &str,
        number: usize,
    ) -> Result<Vec<(String, String)>, String> {
        let mut own = Vec::new();
        if ["up", "command"].contains(&role) {
            let listen = port();
            let proxy = Proxy::start(listen).map_err(|error| error.to_string())?;
            self.links.insert(format!("tcp-{name}"), proxy);
            own.push(pair("command.tcp.listen", &listen));
        }
        if ["up", "materializer"].contains(&role) {
            own.push(pair("journal.directory", &self.journal(name).display()));
            // Small segments: they rotate all the time.
            own.push(pair("journal.segment_size", &"128KiB"));
        }
        if role == "materializer" && number > 1 {
            own.extend([pair("journal.name", &format!("copy-{number}")), pair("journal.format", &"framed")]);
        }
        Ok(own)
    }

    fn journal(&self, node: &str) -> PathBuf {
        self.folder.join("journals").join(node)
    }

    /// The addresses for messages, behind the clients' links.
    pub(crate) fn intakes(&self) -> Vec<SocketAddr> {
        self.links.iter().filter(|(name, _)| name.starts_with("tcp-")).map(|(_, proxy)| proxy.address()).collect()
    }

    /// The directories of the journals, by the process that writes them.
    pub(crate) fn journals(&self) -> Vec<(String, PathBuf)> {
        let writers = self.nodes.iter().filter(|node| ["up", "materializer"].contains(&node.role));
        writers.map(|node| (node.name.clone(), self.journal(&node.name))).collect()
    }
}
