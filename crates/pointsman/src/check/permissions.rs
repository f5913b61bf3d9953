//! Whether the users of a service may do what it needs of the servers. Each command is tried in a form that changes nothing:
//! with an argument that the server refuses, or as Pointsman itself would use it all the time. The permission is looked
//! at first (`processCommand` in `server.c`).
use super::{Findings, connect};
use crate::client::{Client, Value};
use pointsman_config::Service;
use pointsman_core::policy::Credential;
use pointsman_core::switchover::lacks_permission;
use pointsman_core::topology::settings::Source;
use std::collections::BTreeMap;

/// A command that somebody must be allowed to run.
struct Need {
    /// As the operator knows it.
    command: &'static str,
    /// How it is tried.
    words: &'static [&'static str],
    /// What happens without it.
    without: &'static str,
}

const fn need(command: &'static str, words: &'static [&'static str], without: &'static str) -> Need {
    Need { command, words, without }
}

const INFO: Need = need(
    "INFO",
    &["INFO", "replication"],
    "a new master is granted only when a majority names it, and what was lost is not told",
);
const GUARD: &str =
    "the guard goes by ROLE and INFO, and needs over two seconds to notice that replicas are silent";
const PUBLISH: Need = need("PUBLISH to pointsman:guard", &["PUBLISH", "pointsman:guard", ""], GUARD);
const WAIT: Need = need("WAIT", &["WAIT", "0", "1"], GUARD);
const SWITCHOVER: &str = "`pointsman switchover` refuses";
const PAUSE: Need = need("CLIENT PAUSE", &["CLIENT", "PAUSE", "?", "WRITE"], SWITCHOVER);
const REPLICAOF: Need = need("REPLICAOF", &["REPLICAOF", "127.0.0.1", "?"], SWITCHOVER);
const DEMOTE: Need = need(
    "REPLICAOF",
    REPLICAOF.words,
    "`pointsman switchover` refuses, and a deposed master takes direct writes until the Sentinels tell it whom to follow",
);
const PRIORITY: Need =
    need("CONFIG SET", &["CONFIG", "SET", "replica-priority", "?"], "`pointsman switchover --to` refuses");
const HANDOVER: Need = need("FAILOVER", &["FAILOVER", "TIMEOUT", "?"], SWITCHOVER);
/// These take no argument that could be refused: they are asked about, where that is allowed.
const UNASKED: [(&str, &[&str], &str); 2] = [
    (
        "CLIENT UNPAUSE",
        &["CLIENT", "UNPAUSE"],
        "a switchover leaves the writes paused until the pause's own time is over",
    ),
    (
        "CONFIG REWRITE",
        &["CONFIG", "REWRITE"],
        "a node that was told to follow is a master again when it is restarted",
    ),
];
const FAILOVER: Need = need("SENTINEL FAILOVER", &["SENTINEL", "FAILOVER", "pointsman:nobody"], SWITCHOVER);
const EVENTS: Need = need("PSUBSCRIBE", &["PSUBSCRIBE", "*"], "what it does is seen by polls only");
const DURABLE: Need = need("WAIT", WAIT.words, "every durable write gets -NOTDURABLE");
const DURABLE_PING: Need =
    need("PING", &["PING"], "what is durable in transactions and after blocking commands gets -NOTDURABLE");

/// Who denies a command, by what is needed: the first one's words, and all that say so.
#[derive(Default)]
struct Denials(BTreeMap<(&'static str, &'static str), (String, Vec<String>)>);

impl Denials {
    fn add(&mut self, command: &'static str, without: &'static str, words: String, at: &str) {
        self.0.entry((command, without)).or_insert_with(|| (words, Vec::new())).1.push(at.into());
    }

    fn tell(self, user: &str, found: &mut Findings) {
        for ((command, without), (words, at)) in self.0 {
            found
                .warnings
                .push(format!("{user} may not {command} on {} ({words}): {without}", at.join(", ")));
        }
    }
}

/// What the service's users may do on its nodes: on these masters, and on these replicas of theirs.
pub(super) fn probe_nodes(service: &Service, masters: &[String], replicas: &[String], found: &mut Findings) {
    let credential = service.topology.node_credential.as_ref();
    let mut denials = Denials::default();
    for (i, at) in masters.iter().chain(replicas).enumerate() {
        match connect(at, credential) {
            Ok(mut client) => {
                needs(service).iter().for_each(|n| n.check(&mut client, at, &mut denials));
                if matches!(service.topology.source, Source::Sentinels { .. }) {
                    check_unasked(&mut client, credential, at, &mut denials);
                }
            }
            // That a master cannot be reached is said elsewhere.
            Err(e) if i >= masters.len() => found.warnings.push(format!("replica {at}: {e}")),
            Err(_) => {}
        }
    }
    denials.tell(&named("the user for observing", credential), found);
    probe_upstream_user(service, masters, found);
    if service.policy.durable.replicas > 0 {
        probe_clients(service, masters, found);
    }
}

/// Whether clients are let in that do not authenticate to the nodes themselves.
fn probe_upstream_user(service: &Service, masters: &[String], found: &mut Findings) {
    let credential = service.policy.upstream_user.as_ref();
    if credential.is_none() && service.policy.users.is_none() {
        return;
    }
    let who = named("the clients' user", credential);
    for at in masters {
        match connect(at, credential).and_then(|mut c| c.call(&["PING"]).map_err(|e| e.to_string())) {
            Ok(Value::Error(e)) if e.starts_with("NOAUTH") => {
                found.errors.push(format!("node {at} asks {who} for a password: give `upstream_password`"));
            }
            Ok(_) => {}
            Err(e) => found.errors.push(format!("node {at} does not let {who} in: {e}")),
        }
    }
}

/// What is needed of each node: any of them may be master.
fn needs(service: &Service) -> Vec<&'static Need> {
    let settings = &service.topology;
    if !matches!(settings.source, Source::Sentinels { .. }) {
        return vec![&INFO, &HANDOVER];
    }
    let guard: &[&Need] = if settings.guard.is_some() { &[&PUBLISH, &WAIT] } else { &[] };
    let replicaof = if settings.demote { &DEMOTE } else { &REPLICAOF };
    [&INFO].into_iter().chain(guard.iter().copied()).chain([&PAUSE, replicaof, &PRIORITY]).collect()
}

/// Whether the users that clients have before they authenticate themselves may do what their durable writes need.
fn probe_clients(service: &Service, masters: &[String], found: &mut Findings) {
    let credential = service.policy.upstream_user.as_ref();
    let mut denials = Denials::default();
    for at in masters {
        let Ok(mut client) = connect(at, credential) else { continue };
        if matches!(client.call(&["PING"]), Ok(Value::Error(e)) if e.starts_with("NOAUTH")) {
            found.seen.push(format!(
                "node {at}: clients authenticate themselves; whether their users may WAIT was not tried"
            ));
            continue;
        }
        [DURABLE, DURABLE_PING].iter().for_each(|n| n.check(&mut client, at, &mut denials));
    }
    denials.tell(&named("the clients' user", credential), found);
}

/// What the user for the Sentinels may do there.
pub(super) fn probe_sentinels(service: &Service, sentinels: &[&String], found: &mut Findings) {
    let credential = service.topology.sentinel_credential.as_ref();
    let mut denials = Denials::default();
    for at in sentinels {
        if let Ok(mut client) = connect(at, credential) {
            // Behind PSUBSCRIBE nothing else may be asked.
            [FAILOVER, EVENTS].iter().for_each(|n| n.check(&mut client, at, &mut denials));
        }
    }
    denials.tell(&named("the user for the Sentinels", credential), found);
}

impl Need {
    fn check(&self, client: &mut Client, at: &str, denials: &mut Denials) {
        if let Ok(Value::Error(e)) = client.call(self.words)
            && lacks_permission(&e)
        {
            denials.add(self.command, self.without, e, at);
        }
    }
}

/// Asks about what cannot be tried, where that is allowed (`ACL DRYRUN`, Redis 7.0).
fn check_unasked(client: &mut Client, credential: Option<&Credential>, at: &str, denials: &mut Denials) {
    let user = credential.and_then(|c| c.user.as_deref()).unwrap_or(b"default");
    for (command, words, without) in UNASKED {
        let asked: Vec<&[u8]> =
            [&b"ACL"[..], b"DRYRUN", user].into_iter().chain(words.iter().map(|w| w.as_bytes())).collect();
        match client.call(&asked).ok().and_then(|said| said.text()) {
            Some(text) if text != "OK" => denials.add(command, without, text, at),
            _ => {}
        }
    }
}

fn named(role: &str, credential: Option<&Credential>) -> String {
    let user = credential.and_then(|c| c.user.as_deref());
    format!("{role} ('{}')", user.map_or("default".into(), String::from_utf8_lossy))
}
