//! One description of each command out of what several servers say, and since when each kind of server has it.
use super::captured::Captured;
use super::{Described, DescribedKeys, judge};
use std::collections::BTreeMap;

/// What one server says of a command.
struct Said {
    kind: &'static str,
    /// In which version it came, if anybody says so.
    since: Option<String>,
    command: Described,
}

/// All commands of all servers, in the order of their names. `since` is for people: `Redis 7.4, Valkey 9.0`.
pub(super) fn all(captured: &[Captured]) -> Vec<Described> {
    let mut of_name: BTreeMap<String, Vec<Said>> = BTreeMap::new();
    for (i, server) in captured.iter().enumerate() {
        let kind = if server.kind() == "redis" { "Redis" } else { "Valkey" };
        for command in &server.commands {
            // Modules do not say it: then since the first of these servers that has it, if an older one had not.
            let seen = (i > 0).then(|| server.short_version());
            let since = command.since.as_deref().map(short).or(seen);
            let said = Said { kind, since, command: command.clone() };
            of_name.entry(command.name.clone()).or_default().push(said);
        }
    }
    of_name.into_values().map(|said| merge(&said)).collect()
}

/// The newest Redis is believed, or else the newest Valkey; but the arity is the laxest, what blocks anywhere blocks, and keys that it
/// does not say are those that another says.
fn merge(said: &[Said]) -> Described {
    let of = |kind: &str| said.iter().rfind(|s| s.kind == kind).map(|s| &s.command);
    let newest = ["Redis", "Valkey"].into_iter().find_map(of);
    let mut merged = newest.expect("somebody said it").clone();
    for Said { command: other, .. } in said {
        merged.arity = judge::laxer(merged.arity, other.arity);
        if other.blocks() && !merged.blocks() {
            merged.flags.push("blocking".into());
        }
        if merged.keys == DescribedKeys::Incomplete {
            merged.keys = other.keys.clone();
        }
    }
    merged.since = since(said);
    merged
}

/// Since when each kind of server has a command; up to Redis 7.2 Valkey is Redis.
fn since(said: &[Said]) -> Option<String> {
    let of = |kind: &str| said.iter().find(|s| s.kind == kind && s.since.is_some())?.since.clone();
    let (redis, valkey) = (of("Redis"), of("Valkey"));
    if redis == valkey {
        return redis;
    }
    let redis = redis.map(|version| format!("Redis {version}"));
    let both = redis.into_iter().chain(valkey.map(|version| format!("Valkey {version}")));
    Some(both.collect::<Vec<_>>().join(", "))
}

/// `7.4` of `7.4.0`.
pub(super) fn short(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}
