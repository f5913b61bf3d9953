//! Whether durable writes of a service can be acknowledged, and are not lost: what a probe can see of the condition in
//! docs/guide/durable-writes.md.
use crate::client::Value;
use std::collections::BTreeSet;

/// A replica, as a Sentinel lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Replica {
    host: String,
    port: String,
    /// `slave-priority`; 0: it is never promoted.
    priority: u64,
    up: bool,
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
    let beside: Vec<String> = all.iter().filter(|r| r.host == master_host).map(Replica::name).collect();
    if beside.len() >= wanted && !beside.is_empty() {
        warnings.push(format!(
            "{} run on the master's host {master_host}: with it may go all that have a write; raise durable to {}, or move them",
            beside.join(", "),
            beside.len() + 1
        ));
    }
    (errors, warnings)
}

impl Replica {
    fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
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
        assert!(warned(1, &[replica("h1", 100), replica("h3", 100)]).contains("master's host"));
        // All that there are have it, whoever is promoted.
        assert!(!warned(2, &[replica("h2", 10), replica("h3", 100)]).contains("priorities"));
    }
}
