//! `pointsman check`: validates a configuration, explains what it would do, and with `--probe` asks the Sentinels and
//! nodes that it names.
mod durable;
mod permissions;

use crate::client::{Client, Value};
use pointsman_config::{Config, Flags, Service, explain, from_flags, warnings};
use pointsman_core::policy::Credential;
use pointsman_core::topology::settings::{HostPort, Source};
use std::collections::BTreeMap;
use std::io;
use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::time::Duration;

/// How long one server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// What an election and a promotion take beyond down-after: usually half a second, with a split vote far more.
const FAILOVER: Duration = Duration::from_secs(4);

/// Validates what the flags, or the file that they name, describe. Exits with 0 if it can be run, with 1 if it cannot
/// (or if a probe found that it could not serve now).
pub fn check(flags: &Flags, probe: bool) -> ExitCode {
    let config = match from_flags(flags, &|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", explain(&config).trim_end());
    for warning in warnings(&config) {
        println!("warning: {warning}");
    }
    if !probe {
        return ExitCode::SUCCESS;
    }
    let failed = probe_all(&config);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What a probe found of one service.
#[derive(Default)]
struct Findings {
    seen: Vec<String>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

fn probe_all(config: &Config) -> bool {
    let mut failed = false;
    for service in &config.services {
        let mut found = Findings::default();
        match &service.topology.source {
            Source::Sentinels { sentinels, master } => {
                probe_sentinels(service, sentinels, master, &mut found)
            }
            Source::Roles { nodes, .. } => {
                let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
                probe_roles(service, &nodes, &mut found);
            }
            Source::Static { nodes, .. } => {
                for node in nodes {
                    match ask_role(service, &node.at.to_string()) {
                        Ok(role) => found.seen.push(format!("node {}: {role}", node.at)),
                        Err(e) => found.errors.push(format!("node {}: {e}", node.at)),
                    }
                }
            }
        }
        println!("\nprobe of service '{}'", service.name);
        found.seen.iter().for_each(|line| println!("  {line}"));
        found.warnings.iter().for_each(|line| println!("  warning: {line}"));
        found.errors.iter().for_each(|line| println!("  error: {line}"));
        failed |= !found.errors.is_empty();
    }
    failed
}

/// One Sentinel's view of the master.
struct View {
    address: String,
    epoch: String,
    quorum: u64,
    others: u64,
    down_after: Duration,
    replicas: u64,
}

fn probe_sentinels(service: &Service, sentinels: &[HostPort], master: &str, found: &mut Findings) {
    let mut views = BTreeMap::new();
    for sentinel in sentinels {
        match ask_sentinel(service, sentinel, master) {
            Ok(view) => {
                found.seen.push(format!(
                    "Sentinel {sentinel}: names {} at config epoch {}, knows {} other Sentinels and {} replicas, quorum {}, down-after {} ms",
                    view.address, view.epoch, view.others, view.replicas, view.quorum, view.down_after.as_millis()
                ));
                views.insert(sentinel.to_string(), view);
            }
            Err(e) => found.warnings.push(format!("Sentinel {sentinel}: {e}")),
        }
    }
    judge_sentinels(service, sentinels.len(), &views, found);
    let replicas = probe_replicas(service, sentinels, master, &views, found);
    let mut named: Vec<String> = views.values().map(|v| v.address.clone()).collect();
    named.sort_unstable();
    named.dedup();
    for address in &named {
        match ask_role(service, address) {
            Ok(role) if role.starts_with("master") => found.seen.push(format!("node {address}: {role}")),
            Ok(role) => {
                found.errors.push(format!("node {address} is named master but says that it is {role}"))
            }
            Err(e) => found.errors.push(format!("node {address}, which is named master: {e}")),
        }
    }
    permissions::probe_nodes(service, &named, &replicas, found);
    permissions::probe_sentinels(service, &views.keys().collect::<Vec<_>>(), found);
}

/// The replicas that a Sentinel lists and sees up, and whether they do for durable writes.
fn probe_replicas(
    service: &Service,
    sentinels: &[HostPort],
    master: &str,
    views: &BTreeMap<String, View>,
    found: &mut Findings,
) -> Vec<String> {
    let Some(at) = sentinels.iter().find(|s| views.contains_key(&s.to_string())) else { return Vec::new() };
    let host = views[&at.to_string()].address.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    let list = connect(&at.to_string(), service.topology.sentinel_credential.as_ref())
        .and_then(|mut c| c.call(&["SENTINEL", "REPLICAS", master]).map_err(|e| e.to_string()));
    match list {
        Ok(list) => {
            let (wanted, all) = (service.policy.durable.replicas as usize, durable::replicas(&list));
            if wanted > 0 {
                let (errors, warnings) = durable::judge(wanted, host, &all);
                found.errors.extend(errors);
                found.warnings.extend(warnings);
            }
            all.iter().filter(|r| r.up).map(durable::Replica::name).collect()
        }
        Err(e) => {
            found.warnings.push(format!("Sentinel {at} does not tell the replicas: {e}"));
            Vec::new()
        }
    }
}

fn judge_sentinels(
    service: &Service,
    configured: usize,
    views: &BTreeMap<String, View>,
    found: &mut Findings,
) {
    let known = views.values().map(|v| v.others as usize + 1).max().unwrap_or(0).max(configured);
    let majority = known / 2 + 1;
    if views.len() < majority {
        let text = format!(
            "{} of {known} Sentinels name a master, {majority} must: nothing would be served",
            views.len()
        );
        found.errors.push(text);
    }
    let mut most: BTreeMap<&str, usize> = BTreeMap::new();
    views.values().for_each(|v| *most.entry(&v.address).or_default() += 1);
    if most.len() > 1 {
        let said: Vec<String> = most.iter().map(|(a, n)| format!("{n} name {a}")).collect();
        found.warnings.push(format!("the Sentinels do not agree: {}", said.join(", ")));
    }
    if known % 2 == 0 && known > 0 {
        let text = format!(
            "{known} Sentinels are known: an even number bears no more failures than one less, and can split"
        );
        found.warnings.push(text);
    }
    if known < 3 {
        found.warnings.push(format!("{known} Sentinels are known: with fewer than 3 none may fail"));
    }
    for (who, v) in views {
        if v.quorum < 2 {
            let text = format!("Sentinel {who} has quorum 1: one Sentinel that is cut off begins failovers");
            found.warnings.push(text);
        }
        if v.quorum as usize > v.others as usize + 1 {
            let text = format!(
                "Sentinel {who} has quorum {} but knows of {} Sentinels: no failover",
                v.quorum,
                v.others + 1
            );
            found.warnings.push(text);
        }
        if v.replicas == 0 {
            found.warnings.push(format!("Sentinel {who} knows of no replica: a failed master stays down"));
        }
        let settings = &service.topology;
        if settings.hold_max.is_some_and(|hold| hold < v.down_after + FAILOVER) {
            found.warnings.push(format!(
                "the hold is shorter than a failover takes (down-after of {who} is {} ms, then up to about {} s): clients would get errors",
                v.down_after.as_millis(),
                FAILOVER.as_secs()
            ));
        }
    }
}

fn probe_roles(service: &Service, nodes: &[String], found: &mut Findings) {
    let (mut masters, mut replicas) = (Vec::new(), Vec::new());
    let mut answered = 0;
    for node in nodes {
        match ask_role(service, node) {
            Ok(role) => {
                answered += 1;
                let same = if role.starts_with("master") { &mut masters } else { &mut replicas };
                same.push(node.clone());
                found.seen.push(format!("node {node}: {role}"));
            }
            Err(e) => found.warnings.push(format!("node {node}: {e}")),
        }
    }
    if answered == 0 {
        found.errors.push("no node answers: nothing would be served".into());
    }
    match masters.len() {
        0 if answered > 0 => {
            found.errors.push("no node says that it is master: nothing would be served".into())
        }
        0 | 1 => {}
        _ => found.errors.push(format!("{} say that they are master", masters.join(" and "))),
    }
    if nodes.len() > 1 && nodes.len() - answered > 0 && answered * 2 <= nodes.len() {
        found.warnings.push("most nodes are silent: the only claimant is granted after a wait".into());
    }
    permissions::probe_nodes(service, &masters, &replicas, found);
}

fn ask_sentinel(service: &Service, at: &HostPort, master: &str) -> Result<View, String> {
    let mut client = connect(&at.to_string(), service.topology.sentinel_credential.as_ref())?;
    let call = |client: &mut Client, args: &[&str]| match client.call(args) {
        Ok(Value::Error(e)) => Err(format!("says: {e}")),
        Ok(value) => Ok(value),
        Err(e) => Err(e.to_string()),
    };
    let fields = call(&mut client, &["SENTINEL", "MASTER", master])?;
    let address = call(&mut client, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master])?;
    let parts: Vec<String> = address.items().iter().filter_map(Value::text).collect();
    let [host, port] = &parts[..] else { return Err("does not tell the master's address".into()) };
    let number = |name: &str| fields.field(name).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
    Ok(View {
        address: joined(host, port),
        epoch: fields.field("config-epoch").unwrap_or_else(|| "?".into()),
        quorum: number("quorum"),
        others: number("num-other-sentinels"),
        down_after: Duration::from_millis(number("down-after-milliseconds")),
        replicas: number("num-slaves"),
    })
}

fn joined(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A node's role in words: `master with 2 replicas`, `replica of A (connected)`.
fn ask_role(service: &Service, at: &str) -> Result<String, String> {
    let mut client = connect(at, service.topology.node_credential.as_ref())?;
    let role = match client.call(&["ROLE"]) {
        Ok(Value::Error(e)) => return Err(format!("does not tell its role: {e}")),
        Ok(role) => role,
        Err(e) => return Err(e.to_string()),
    };
    let items = role.items();
    let text = |i: usize| items.get(i).and_then(Value::text).unwrap_or_default();
    Ok(match text(0).as_str() {
        "master" => format!("master with {} replicas", items.get(2).map_or(0, |r| r.items().len())),
        "slave" => format!("replica of {}:{} ({})", text(1), text(2), text(3)),
        other => format!("a {other}"),
    })
}

fn connect(at: &str, credential: Option<&Credential>) -> Result<Client, String> {
    let mut addresses = at.to_socket_addrs().map_err(|e| format!("cannot be resolved: {e}"))?;
    let address = addresses.next().ok_or("has no address")?;
    let words = |e: io::Error| format!("cannot be reached: {e}");
    let mut client = Client::connect(address, PATIENCE).map_err(words)?;
    if let Some(c) = credential {
        let mut args: Vec<&[u8]> = vec![b"AUTH"];
        args.extend(c.user.as_deref());
        args.push(&c.secret);
        if let Value::Error(e) = client.call(&args).map_err(words)? {
            return Err(format!("refuses the password: {e}"));
        }
    }
    Ok(client)
}
