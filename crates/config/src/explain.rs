//! What a configuration would do, in plain words: for `pointsman check`.
use crate::units::{show_duration, show_size};
use crate::{Config, EventsFile, Service};
use pointsman_core::policy::{Allow, Durable, Policy, Retry};
use pointsman_core::topology::settings::{Failback, Settings, Source, StaticNode, WithoutLease};
use std::fmt::Write;

/// What `config` would do, in sentences: a paragraph for each service, and one for the process.
pub fn explain(config: &Config) -> String {
    let mut text = String::new();
    for service in &config.services {
        paragraph(&mut text, &format!("Service \"{}\"", service.name), &service_sentences(service));
    }
    paragraph(&mut text, "The process", &process_sentences(config));
    text
}

fn paragraph(text: &mut String, title: &str, sentences: &[String]) {
    let gap = if text.is_empty() { "" } else { "\n" };
    writeln!(text, "{gap}{title}").expect("a String takes all");
    for sentence in sentences {
        writeln!(text, "  - {sentence}").expect("a String takes all");
    }
}

fn service_sentences(service: &Service) -> Vec<String> {
    let mut sentences = vec![format!("accepts clients on {}.", listed(&service.listen))];
    sentences.extend(source_sentences(&service.topology));
    sentences.extend(hold_sentences(&service.topology));
    sentences.extend(lease_sentence(&service.topology));
    sentences.extend(durable_sentence(service));
    sentences.extend(client_sentences(&service.policy));
    sentences
}

fn source_sentences(settings: &Settings) -> Vec<String> {
    let asked = format!(
        "asks each of them every {}, and takes one that does not answer for {} as silent",
        show_duration(settings.interval),
        show_duration(settings.timeout)
    );
    let mut sentences = match &settings.source {
        Source::Sentinels { sentinels, master } => vec![
            format!(
                "finds the master of \"{master}\" with the Sentinels {} and those that they know of: a node that a \
                 majority names, and that agrees.",
                listed(sentinels)
            ),
            format!("{asked}; also listens to what they announce."),
        ],
        Source::Roles { nodes, start_wait } => vec![
            format!(
                "finds the master among {}: the only one that claims to be master, if most of them answered or if \
                 lineage proves it.",
                listed(nodes)
            ),
            format!(
                "{asked}; at start, trusts the only claimant after {} even if most are silent.",
                show_duration(*start_wait)
            ),
        ],
        Source::Static { nodes, rise, fall, failback } => vec![
            format!("uses {}; passes READONLY errors on.", in_order(nodes)),
            format!(
                "{asked}; {fall} failed checks in a row make a node unhealthy, {rise} good ones healthy."
            ),
            format!("when a more preferred node recovers, it {}.", failback_words(*failback)),
        ],
    };
    let secret = |with: bool| if with { "with a password" } else { "without a password" };
    sentences.push(match &settings.source {
        Source::Sentinels { .. } => format!(
            "observes the Sentinels {}, and the nodes {}.",
            secret(settings.sentinel_credential.is_some()),
            secret(settings.node_credential.is_some())
        ),
        _ => format!("observes the nodes {}.", secret(settings.node_credential.is_some())),
    });
    sentences
}

fn in_order(nodes: &[StaticNode]) -> String {
    let (backups, others): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.backup);
    let addresses = |nodes: &[&StaticNode]| listed(&nodes.iter().map(|node| &node.at).collect::<Vec<_>>());
    match (others.is_empty(), backups.is_empty()) {
        (false, false) => format!(
            "the first healthy one of {}, and only if none is, of the backups {}",
            addresses(&others),
            addresses(&backups)
        ),
        (false, true) => format!("the first healthy one of {}", addresses(&others)),
        (true, _) => format!("the first healthy one of the backups {}", addresses(&backups)),
    }
}

fn failback_words(failback: Failback) -> String {
    match failback {
        Failback::Never => "stays with the present one until that fails".into(),
        Failback::Cut => "goes back at once and closes what is open to the present one".into(),
        Failback::Drain(d) => {
            format!("goes back, and gives commands on their way up to {} to be answered", show_duration(d))
        }
    }
}

fn hold_sentences(settings: &Settings) -> Vec<String> {
    let who = if settings.hold_reads {
        "commands wait"
    } else {
        "writes wait, and reads go on to the last master,"
    };
    let hold = match (settings.hold_max, &settings.source) {
        (Some(hold), _) if hold.is_zero() => {
            return vec!["without a master, answers -MASTERDOWN at once.".into()];
        }
        (Some(hold), _) => format!("up to {}", show_duration(hold)),
        (None, Source::Sentinels { .. }) => {
            "for the largest down-after-milliseconds of the Sentinels and 10 s, at most 1m".into()
        }
        (None, _) => "up to 15s".into(),
    };
    let master = format!(
        "without a master, {who} {hold}; then they get -MASTERDOWN until there is one. Clients stay connected."
    );
    let replica = settings
        .replica_reads
        .then(|| "reads that would wait are served by a replica, which may lack the newest writes.".into());
    [master].into_iter().chain(replica).chain(guard_sentence(settings)).collect()
}

fn guard_sentence(settings: &Settings) -> Option<String> {
    match (&settings.source, settings.guard) {
        (Source::Sentinels { .. }, Some(guard)) => Some(format!(
            "while writes flow, asks every {} whether a replica acknowledges within {}, and holds writes while none does \
             and another node could be promoted.",
            show_duration(guard.every),
            show_duration(guard.wait)
        )),
        (Source::Sentinels { .. }, None) => Some(
            "goes on to write to a master whose replicas are silent, until the Sentinels say more.".into(),
        ),
        _ => None,
    }
}

fn lease_sentence(settings: &Settings) -> Option<String> {
    let Source::Sentinels { .. } = settings.source else { return None };
    let what = match settings.fencing.without_lease {
        WithoutLease::HoldWrites => "writes wait and reads go on",
        WithoutLease::HoldAll => "all commands wait",
        WithoutLease::GoOn => "nothing waits",
    };
    let dead = match settings.fencing.refused_is_dead {
        true => "those that refuse connections are dead, and cannot",
        false => "also if they refuse connections",
    };
    Some(format!("while Sentinels that it does not hear could have elected another master, {what}; {dead}."))
}

fn durable_sentence(service: &Service) -> Option<String> {
    let Durable { replicas, timeout } = service.policy.durable;
    let have = match replicas {
        0 => return None,
        1 => "a replica has it".into(),
        n => format!("{n} replicas have it"),
    };
    let whose = match &service.durable_listen[..] {
        [] => String::new(),
        some => format!(" of a client on {}", listed(some)),
    };
    let timeout = show_duration(timeout);
    Some(format!("acknowledges a write{whose} when {have}; after {timeout} it gets -NOTDURABLE instead."))
}

fn client_sentences(policy: &Policy) -> Vec<String> {
    let resent = match policy.retry {
        Retry::None => "all get",
        Retry::Reads => "those that only read are sent again, and the others get",
        Retry::Idempotent => {
            "those that only read, and idempotent writes, are sent again, and the others get"
        }
    };
    let mut sentences =
        vec![format!("of commands that were sent when a connection breaks, {resent} -UNCERTAIN.")];
    sentences.push(user_sentence(policy));
    sentences.push(match &policy.allow {
        Allow::Default => {
            "refuses what would break the deployment or the proxy (SHUTDOWN, REPLICAOF, DEBUG …).".into()
        }
        Allow::These(commands) => {
            format!(
                "refuses what would break the deployment or the proxy, but allows {}.",
                commands.join(", ")
            )
        }
        Allow::All => "refuses no command by default.".into(),
    });
    sentences.extend(rule_sentences(policy));
    sentences.push(format!(
        "takes up to {} clients a worker, {}.",
        policy.clients_max,
        match policy.client_idle {
            None => "however long they are idle".into(),
            Some(idle) => format!("and closes one that is idle for {}", show_duration(idle)),
        }
    ));
    sentences
}

fn user_sentence(policy: &Policy) -> String {
    let upstream = policy.upstream_user.as_ref().map(|credential| {
        let name = credential.user.as_deref().unwrap_or(b"default").escape_ascii();
        format!("act as the user `{name}`")
    });
    match (&policy.users, upstream) {
        (None, None) => "clients authenticate themselves, as on a direct connection.".into(),
        (None, Some(acts)) => format!("clients that do not authenticate {acts}."),
        (Some(users), acts) => {
            let acts = acts.unwrap_or_else(|| "use the nodes without a password".into());
            let must = match users.newcomer() {
                None => "authenticate to Pointsman",
                Some(_) => "may authenticate to Pointsman",
            };
            format!("clients {must}, as {users}, and {acts}.")
        }
    }
}

fn rule_sentences(policy: &Policy) -> impl Iterator<Item = String> {
    let rules = policy.rules.as_deref();
    let denied = rules.map(|rules| rules.denied().collect::<Vec<_>>().join(", ")).unwrap_or_default();
    let renamed = rules.into_iter().flat_map(|rules| rules.renamed());
    let renamed: Vec<String> = renamed.map(|(own, name)| format!("{own} is called {name}")).collect();
    let denied = (!denied.is_empty()).then(|| format!("denies {denied}."));
    let renamed = (!renamed.is_empty()).then(|| format!("calls commands otherwise: {}.", renamed.join(", ")));
    denied.into_iter().chain(renamed)
}

fn process_sentences(config: &Config) -> Vec<String> {
    let workers = match config.workers {
        0 => "serves clients with as many threads as there are cores.".into(),
        1 => "serves clients with 1 thread.".into(),
        n => format!("serves clients with {n} threads."),
    };
    let admin = match config.admin {
        Some(admin) => format!("serves health, status and metrics on http://{admin}."),
        None => "serves no health, status and metrics.".into(),
    };
    let stop =
        format!("when told to stop, gives clients {} to finish.", show_duration(config.shutdown_grace));
    let events = match &config.events.file {
        EventsFile::Off => "keeps events in memory only.".into(),
        file => {
            let at = match file {
                EventsFile::At(path) => path.display().to_string(),
                _ => "the state directory (STATE_DIRECTORY, else /var/lib/pointsman) if there is one".into(),
            };
            format!("keeps up to {} of events in {at}.", show_size(config.events.size_max))
        }
    };
    vec![workers, admin, events, stop]
}

/// `a`, `a and b`, `a, b and c`.
fn listed<T: std::fmt::Display>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(T::to_string).collect();
    match texts.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn explained(text: &str) -> String {
        explain(&parse(text, "t.toml", &|_| None).unwrap_or_else(|errors| panic!("{errors}")))
    }

    #[test]
    fn the_smallest_file_is_explained() {
        let text = explained(
            "[[service]]\nname = \"cache\"\nlisten = [\"0.0.0.0:6379\"]\nsentinels = [\"s1:1\", \"s2:1\", \"s3:1\"]\n\
             master = \"mymaster\"\n",
        );
        let expected = "\
Service \"cache\"
  - accepts clients on 0.0.0.0:6379.
  - finds the master of \"mymaster\" with the Sentinels s1:1, s2:1 and s3:1 and those that they know of: a node that a \
majority names, and that agrees.
  - asks each of them every 250ms, and takes one that does not answer for 1s as silent; also listens to what they \
announce.
  - observes the Sentinels without a password, and the nodes without a password.
  - without a master, commands wait for the largest down-after-milliseconds of the Sentinels and 10 s, at most 1m; \
then they get -MASTERDOWN until there is one. Clients stay connected.
  - while writes flow, asks every 100ms whether a replica acknowledges within 150ms, and holds writes while none does and \
another node could be promoted.
  - while Sentinels that it does not hear could have elected another master, writes wait and reads go on; those that \
refuse connections are dead, and cannot.
  - of commands that were sent when a connection breaks, those that only read are sent again, and the others get \
-UNCERTAIN.
  - clients authenticate themselves, as on a direct connection.
  - refuses what would break the deployment or the proxy (SHUTDOWN, REPLICAOF, DEBUG …).
  - takes up to 65536 clients a worker, however long they are idle.

The process
  - serves clients with as many threads as there are cores.
  - serves health, status and metrics on http://127.0.0.1:9400.
  - keeps up to 8MiB of events in the state directory (STATE_DIRECTORY, else /var/lib/pointsman) if there is one.
  - when told to stop, gives clients 30s to finish.
";
        assert_eq!(text, expected);
    }

    #[test]
    fn every_key_with_an_effect_on_people_changes_the_explanation() {
        let base = "[[service]]\nname = \"a\"\nlisten = [\"127.0.0.1:1\"]\n";
        let nodes = "nodes = [\"n:1\"]\n";
        let sentinels = "sentinels = [\"s1:1\", \"s2:1\", \"s3:1\"]\nmaster = \"m\"\n";
        let list = "node = [{address = \"n:1\"}, {address = \"m:1\", backup = true}]\n";
        for (source, lines) in [
            (
                sentinels,
                vec!["without_lease = \"hold_all\"", "without_lease = \"go_on\"", "refused_is_dead = false"],
            ),
            (
                nodes,
                vec![
                    "start_wait = \"1s\"",
                    "hold = \"0s\"",
                    "hold = \"9s\"",
                    "hold_reads = false",
                    "held_reads = \"replica\"",
                ],
            ),
            (nodes, vec!["retry = \"none\"", "transparent = true", "allow = \"DEBUG\"", "clients = 5"]),
            (
                nodes,
                vec![
                    "client_idle = \"1h\"",
                    "upstream_password = \"x\"",
                    "client_user = [{ name = \"a\", nopass = true }]",
                    "password = \"x\"",
                    "interval = \"1s\"",
                ],
            ),
            (sentinels, vec!["guard = false", "guard_interval = \"1s\"", "guard_wait = \"1s\""]),
            (
                list,
                vec![
                    "failback = \"cut\"",
                    "failback = \"drain\"",
                    "rise = 7",
                    "fall = 7",
                    "timeout = \"2s\"",
                ],
            ),
        ] {
            let without = explained(&format!("{base}{source}"));
            for line in lines {
                assert_ne!(explained(&format!("{base}{source}{line}\n")), without, "{line}");
            }
        }
    }
}
