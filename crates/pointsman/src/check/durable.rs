//! Whether durable writes of a service can be acknowledged, and are not lost: what a probe can see of the condition in
//! docs/guide/durable-writes.md.
use super::joined;
use crate::client::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A replica, as a Sentinel lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Replica {
    host: String,
    port: String,
    /// `slave-priority`; 0: it is never promoted.
    priority: u64,
    pub(super) up: bool,
}

/// The replicas in the answer to `SENTINEL REPLICAS`.
pub(super) fn replicas(list: &Value) -> Vec<Replica> {
    let one = |fields: &Value| {
        let flags = fields.field("flags").unwrap_or_default();
        let down = |f: &str| matches!(f, "s_down" | "o_down" | "disconnected");
        Some(Replica {
            host: fields.field("ip")?,
            port: fields.field("port")?,
            priority: fields.field("slave-priority").and_then(|p| p.parse().ok()).unwrap_or(100),
            up: !flags.split(',').any(down) && fields.field("master-link-status").as_deref() != Some("err"),
        })
    };
    list.items().iter().filter_map(one).collect()
}

/// What is wrong with waiting for `wanted` replicas: errors, and warnings.
pub(super) fn judge(wanted: usize, master_host: &str, all: &[Replica]) -> (Vec<String>, Vec<String>) {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    let up: Vec<&Replica> = all.iter().filter(|r| r.up).collect();
    if up.len() < wanted {
        errors.push(format!(
            "durable = {wanted}, but {} replicas follow the master: every write gets -NOTDURABLE",
            up.len()
        ));
    } else if all.len() == wanted {
        warnings.push(format!(
            "durable = {wanted} is all replicas that there are: while one is down every write gets -NOTDURABLE"
        ));
    }
    let never: Vec<String> = all.iter().filter(|r| r.priority == 0).map(Replica::name).collect();
    if never.len() >= wanted && !never.is_empty() {
        warnings.push(format!(
            "{} replicas are never promoted (replica-priority 0: {}): it may be they alone that have a write; raise durable to {}",
            never.len(),
            never.join(", "),
            never.len() + 1
        ));
    }
    let priorities: BTreeSet<u64> = all.iter().map(|r| r.priority).filter(|p| *p > 0).collect();
    if priorities.len() > 1 && wanted < all.len() {
        warnings.push(
            "the replicas have different priorities: the Sentinels promote by priority, also one that lacks a write that another has; make them equal"
                .into(),
        );
    }
    for (host, nodes) in hosts(master_host, all).into_iter().filter(|(_, nodes)| nodes.len() > wanted) {
        let raise = if nodes.len() <= all.len() {
            format!("raise durable to {}, or ", nodes.len())
        } else {
            "".into()
        };
        warnings.push(format!(
            "{} run on one host, {host}: if one of them is master, all that have a write may go with it; {raise}move them",
            nodes.join(" and ")
        ));
    }
    (errors, warnings)
}

/// Which nodes run on which host.
fn hosts<'a>(master_host: &'a str, all: &'a [Replica]) -> BTreeMap<&'a str, Vec<String>> {
    let mut hosts = BTreeMap::from([(master_host, vec!["the master".into()])]);
    for r in all {
        hosts.entry(r.host.as_str()).or_insert_with(Vec::new).push(r.name());
    }
    hosts
}

impl Replica {
    pub(super) fn name(&self) -> String {
        joined(&self.host, &self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(host: &str, priority: u64) -> Replica {
        Replica { host: host.into(), port: "6379".into(), priority, up: true }
    }

    #[test]
    fn two_replicas_elsewhere_with_equal_priorities_bear_one_that_must_have_it() {
        assert_eq!(judge(1, "h1", &[replica("h2", 100), replica("h3", 100)]), (vec![], vec![]));
    }

    #[test]
    fn what_breaks_the_condition_is_said() {
        let warned = |wanted, all: &[Replica]| judge(wanted, "h1", all).1.join(" ");
        let (errors, _) = judge(2, "h1", &[replica("h2", 100), Replica { up: false, ..replica("h3", 100) }]);
        assert!(errors[0].contains("but 1 replicas follow"), "{errors:?}");
        assert!(warned(2, &[replica("h2", 100), replica("h3", 100)]).contains("all replicas that there are"));
        assert!(warned(1, &[replica("h2", 0), replica("h3", 100)]).contains("raise durable to 2"));
        assert!(warned(1, &[replica("h2", 10), replica("h3", 100)]).contains("different priorities"));
        let beside = warned(1, &[replica("h1", 100), replica("h3", 100)]);
        assert!(beside.contains("the master and h1:6379 run on one host, h1"), "{beside}");
        assert!(beside.contains("raise durable to 2") && !beside.contains("h3"), "{beside}");
        // After a switch one of these is the master.
        let pair = [replica("h2", 100), Replica { port: "6380".into(), ..replica("h2", 100) }];
        assert!(warned(1, &pair).contains("h2:6379 and h2:6380 run on one host"));
        assert!(!warned(2, &[&pair[..], &[replica("h3", 100)]].concat()).contains("run on one host"));
        // All that there are have it, whoever is promoted.
        assert!(!warned(2, &[replica("h2", 10), replica("h3", 100)]).contains("priorities"));
    }
}
