//! What the nodes and the Sentinels say of themselves: what is asked, and what the answers mean.
use super::line::{Answer, failure, permitted};
use crate::observe::node::info;
use crate::observe::reply::Value;
use crate::observe::sentinel::host_port;
use crate::topology::settings::HostPort;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// A name that no deployment has: to try a command harmlessly.
pub(super) const NOBODY: &str = "pointsman:nobody";

/// What a node said last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Node {
    /// It answered.
    pub(super) heard: bool,
    /// Why it did not.
    pub(super) lost: Option<String>,
    pub(super) master: bool,
    /// Whom it follows, if it is a replica.
    pub(super) follows: Option<HostPort>,
    /// Its link to its master is up.
    pub(super) link_up: bool,
    /// Of a master what it wrote, of a replica what it has processed.
    pub(super) offset: u64,
    pub(super) replid: Box<str>,
    pub(super) replid2: Box<str>,
    /// Of a replica.
    pub(super) priority: Option<u32>,
    /// As its master knows its replicas.
    pub(super) replicas: Vec<HostPort>,
    /// A FAILOVER goes on here.
    pub(super) busy: bool,
    /// What it does not let us do: the command, and its words.
    pub(super) denied: Option<String>,
}

impl Node {
    /// Takes in the answer to `INFO replication`.
    pub(super) fn info(&mut self, answer: &Answer) {
        self.lost = failure(answer);
        let Ok(value) = answer else { return };
        let Some(role) = info(value, "role") else {
            self.lost.get_or_insert_with(|| "does not tell its role (INFO replication)".into());
            return;
        };
        let number = |name| info(value, name).and_then(|n| n.parse::<u64>().ok());
        let text = |name| info(value, name).unwrap_or("").into();
        self.heard = true;
        self.master = role == "master";
        self.follows =
            host_port(info(value, "master_host"), info(value, "master_port")).filter(|_| !self.master);
        self.link_up = info(value, "master_link_status") == Some("up");
        let offset = if self.master { "master_repl_offset" } else { "slave_repl_offset" };
        self.offset = number(offset).unwrap_or(0);
        (self.replid, self.replid2) = (text("master_replid"), text("master_replid2"));
        self.priority = number("slave_priority").and_then(|n| u32::try_from(n).ok());
        self.busy = info(value, "master_failover_state").is_some_and(|s| s != "no-failover");
        self.replicas = listed(value);
    }

    /// Takes in what came of a harmless try of `command`.
    pub(super) fn tried(&mut self, command: &str, answer: &Answer) {
        if let Err(why) = permitted(answer) {
            self.denied.get_or_insert_with(|| format!("{command}: {why}"));
        }
    }
}

/// `slave0:ip=10.0.0.2,port=6379,state=online,…`
fn listed(value: &Value) -> Vec<HostPort> {
    let line = |i| info(value, &format!("slave{i}"));
    let field = |line: &'_ str, name: &str| -> Option<String> {
        line.split(',').find_map(|f| f.strip_prefix(name)?.strip_prefix('=')).map(Into::into)
    };
    let at = |line: &str| host_port(field(line, "ip").as_deref(), field(line, "port").as_deref());
    (0..).map_while(line).filter_map(at).collect()
}

/// What a Sentinel said last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Sentinel {
    pub(super) lost: Option<String>,
    /// Whom it names.
    pub(super) names: Option<HostPort>,
    pub(super) flags: String,
    pub(super) down_after: Option<Duration>,
    pub(super) replicas: Vec<Listed>,
    /// Its clock jumped: it does not act.
    pub(super) tilt: bool,
    /// It knows `SENTINEL FAILOVER … COORDINATED`.
    pub(super) coordinated: bool,
    pub(super) denied: Option<String>,
}

/// A replica as a Sentinel sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Listed {
    pub(super) at: HostPort,
    pub(super) priority: u32,
    /// Nothing is wrong with it.
    pub(super) good: bool,
}

impl Sentinel {
    pub(super) fn address(&mut self, answer: &Answer) {
        self.lost = self.lost.take().or(failure(answer));
        let Ok(value) = answer else { return };
        self.names = match value.items() {
            [host, port] => host_port(host.text(), port.text()),
            _ => None,
        };
    }

    pub(super) fn master(&mut self, answer: &Answer) {
        self.lost = self.lost.take().or(failure(answer));
        let Ok(value) = answer else { return };
        self.flags = value.field("flags").unwrap_or("").into();
        self.down_after = value.number("down-after-milliseconds").map(Duration::from_millis);
    }

    pub(super) fn replicas(&mut self, answer: &Answer) {
        self.lost = self.lost.take().or(failure(answer));
        let Ok(value) = answer else { return };
        self.replicas = value.items().iter().filter_map(replica).collect();
    }

    pub(super) fn info(&mut self, answer: &Answer) {
        if let Ok(value) = answer {
            self.tilt = info(value, "sentinel_tilt") == Some("1");
        }
    }

    pub(super) fn tried(&mut self, answer: &Answer) {
        self.denied = permitted(answer).err();
    }

    /// A Sentinel that does not know the word complains of the number of arguments, not of the name.
    pub(super) fn tried_coordinated(&mut self, answer: &Answer) {
        self.coordinated = failure(answer).is_some_and(|text| text.contains("No such"));
    }

    /// Whether it sees nothing wrong with the master, and nothing going on.
    pub(super) fn calm(&self) -> bool {
        !self.flags.is_empty() && self.flags.split(',').all(|f| matches!(f, "master" | "primary"))
    }
}

fn replica(value: &Value) -> Option<Listed> {
    let flags = value.field("flags")?;
    Some(Listed {
        at: host_port(value.field("ip"), value.field("port"))?,
        priority: value.number("slave-priority").or(value.number("replica-priority"))?.try_into().ok()?,
        good: flags.split(',').all(|f| matches!(f, "slave" | "replica")),
    })
}
