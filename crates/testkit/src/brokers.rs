//! A cluster of brokers, each with one listener per link, so that a proxy is between a client and every broker.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use crate::kafka::Kafka;
use crate::proxy::{Link, Proxy};
use crate::wait::free_port;

/// The brokers of one cluster, and the links to them.
#[derive(Debug)]
pub struct Brokers {
    nodes: Vec<Kafka>,
    /// By name: one proxy per broker.
    links: BTreeMap<String, Vec<Proxy>>,
}

impl Brokers {
    /// Starts `count` brokers (1 or 3) with one link per name. With three, internal topics have three replicas and
    /// `min.insync.replicas=2`.
    ///
    /// # Errors
    /// The missing program, or why they did not start.
    pub fn start(count: usize, links: &[&str]) -> Result<Self, String> {
        let ports: Vec<[u16; 2]> = (0..count).map(|_| [free_port(), free_port()]).collect();
        let voters: Vec<String> =
            ports.iter().enumerate().map(|(i, port)| format!("{}@127.0.0.1:{}", i + 1, port[1])).collect();
        let mut brokers = Self { nodes: Vec::new(), links: BTreeMap::new() };
        for (index, [port, controller]) in ports.iter().copied().enumerate() {
            let mut listeners = format!("CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
            let mut advertised = format!("CLIENT://127.0.0.1:{port}");
            let mut protocols = "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
            for (number, link) in links.iter().enumerate() {
                let (inner, outer) = (free_port(), free_port());
                let _ = write!(listeners, ",LINK{number}://127.0.0.1:{inner}");
                let _ = write!(advertised, ",LINK{number}://127.0.0.1:{outer}");
                let _ = write!(protocols, ",LINK{number}:PLAINTEXT");
                let proxy = Proxy::start_on(outer, SocketAddr::from((Ipv4Addr::LOCALHOST, inner)));
                let proxy = proxy.map_err(|error| error.to_string())?;
                brokers.links.entry((*link).to_owned()).or_default().push(proxy);
            }
            let (node, voters, replicas) = ((index + 1).to_string(), voters.join(","), count.to_string());
            let in_sync = count.saturating_sub(1).max(1).to_string();
            brokers.nodes.push(Kafka::prepare(
                port,
                controller,
                &[
                    ("node.id", &node),
                    ("controller.quorum.voters", &voters),
                    ("listeners", &listeners),
                    ("advertised.listeners", &advertised),
                    ("listener.security.protocol.map", &protocols),
                    ("offsets.topic.replication.factor", &replicas),
                    ("transaction.state.log.replication.factor", &replicas),
                    ("transaction.state.log.min.isr", &in_sync),
                    ("share.coordinator.state.topic.replication.factor", &replicas),
                    ("share.coordinator.state.topic.min.isr", &in_sync),
                ],
                &[],
            )?);
        }
        for node in &mut brokers.nodes {
            node.launch()?;
        }
        for node in &mut brokers.nodes {
            node.wait_started()?;
        }
        Ok(brokers)
    }

    /// The brokers, in the order of their node ids, which begin at 1.
    pub fn nodes(&mut self) -> &mut [Kafka] {
        &mut self.nodes
    }

    /// Bootstrap addresses without a proxy.
    pub fn direct(&self) -> String {
        let all: Vec<String> = self.nodes.iter().map(Kafka::brokers).collect();
        all.join(",")
    }

    /// Bootstrap addresses of a link; clients that start there stay on it.
    ///
    /// # Panics
    /// If there is no link of this name.
    pub fn through(&self, link: &str) -> String {
        let all: Vec<String> = self.links[link].iter().map(|proxy| proxy.address().to_string()).collect();
        all.join(",")
    }

    /// Sets the state of a link to every broker.
    pub fn set(&self, link: &str, to: Link) {
        for proxy in self.links.get(link).into_iter().flatten() {
            proxy.set(to);
        }
    }

    /// See [`Proxy::effects`].
    pub fn effects(&self, link: &str) -> u64 {
        self.links.get(link).into_iter().flatten().map(Proxy::effects).sum()
    }
}
