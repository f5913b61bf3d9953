//! What a switchover must know of the topology.
use super::machine::Topology;
use super::nodes::Key;
use super::settings::{HostPort, Source};
use super::status::EventKind;
use crate::Now;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// A node that is observed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// As it was written or announced.
    pub at: HostPort,
    /// Its address, if that is known.
    pub addr: Option<SocketAddr>,
}

/// The topology of one service, for a switchover.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outlook {
    /// The service's name.
    pub service: Arc<str>,
    /// The name that the Sentinels give to the deployment; `None` without Sentinels.
    pub monitored: Option<Arc<str>>,
    /// The granted master.
    pub master: Option<HostPort>,
    /// When the question of its newest proof was sent.
    pub proven_at: Now,
    /// Why the service would hold even without an operator.
    pub holds: Option<Arc<str>>,
    /// The nodes, each server once.
    pub nodes: Vec<Known>,
    /// The Sentinels that count, and how many are a majority.
    pub sentinels: Vec<HostPort>,
    /// How many are a majority.
    pub majority: usize,
}

impl Topology {
    /// What a switchover must know.
    pub fn outlook(&self) -> Outlook {
        let monitored = match &self.settings.source {
            Source::Sentinels { master, .. } => Some(master.clone()),
            _ => None,
        };
        let mut nodes: Vec<Known> = Vec::new();
        for (at, n) in &self.nodes.map {
            if n.addr.is_none() || nodes.iter().all(|k| k.addr != n.addr) {
                nodes.push(Known { at: at.clone(), addr: n.addr });
            }
        }
        let place = |key: &Key| match key {
            Key::Name(at) => at.clone(),
            Key::Addr(a) => nodes.iter().find(|k| k.addr == Some(*a)).map_or_else(
                || HostPort { host: a.ip().to_string().into(), port: a.port() },
                |k| k.at.clone(),
            ),
        };
        let master = self.grant.as_ref().map(|g| place(&g.key));
        Outlook {
            service: self.settings.name.clone(),
            monitored,
            master,
            proven_at: self.grant.as_ref().map_or(Now::ZERO, |g| g.proven_at),
            holds: self.held.as_ref().map(|h| h.why.as_str().into()),
            sentinels: self
                .sentinels()
                .into_iter()
                .flat_map(|s| s.counted())
                .map(|(at, _)| at.clone())
                .collect(),
            majority: self.sentinels().map_or(0, |s| s.need()),
            nodes,
        }
    }

    /// Writes something into the service's story.
    pub fn note(&mut self, now: Now, warning: bool, text: String) {
        self.tell(now, if warning { EventKind::Warning } else { EventKind::Note }, text);
    }

    /// Whether a planned change of master can be asked for at all.
    ///
    /// # Errors
    /// Why not.
    pub fn may_switch(&self) -> Result<(), &'static str> {
        match self.settings.source {
            Source::Static { .. } => {
                Err("its master is the first healthy node of a static list, and nobody's replica")
            }
            _ => Ok(()),
        }
    }
}
