//! What is allowed, and probably not meant: for `pointsman check` and the log at start.
use crate::allow::refuses;
use crate::units::show_duration;
use crate::{Config, Listen, Service};
use pointsman_core::policy::Allow;
use pointsman_core::topology::settings::Source;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One thing to think about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    /// The service that it is about; `None`: the process.
    pub service: Option<Arc<str>>,
    /// The key that it is about, as in the reference.
    pub key: &'static str,
    /// What may go wrong.
    pub risk: String,
    /// What to do about it.
    pub advice: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(service) = &self.service {
            write!(f, "service \"{service}\": ")?;
        }
        write!(f, "`{}`: {}; {}", self.key, self.risk, self.advice)
    }
}

/// What may not be meant in `config`, in the order of the services.
pub fn warnings(config: &Config) -> Vec<Warning> {
    let mut found = Found { service: None, warnings: Vec::new() };
    if config.admin.is_some_and(|admin| !admin.ip().is_loopback()) {
        let risk = "the admin listener asks for no password, and is reachable from other hosts";
        found.add("admin", risk, "bind it to 127.0.0.1, or keep others out with a firewall");
    }
    for service in &config.services {
        found.service = Some(service.name.clone());
        source(&mut found, &service.topology.source);
        times(&mut found, service);
        durable(&mut found, service);
        exposure(&mut found, service);
        idle_names(&mut found, service);
    }
    found.warnings
}

struct Found {
    service: Option<Arc<str>>,
    warnings: Vec<Warning>,
}

impl Found {
    fn add(&mut self, key: &'static str, risk: impl Into<String>, advice: impl Into<String>) {
        let (risk, advice) = (risk.into(), advice.into());
        self.warnings.push(Warning { service: self.service.clone(), key, risk, advice });
    }
}

fn source(found: &mut Found, source: &Source) {
    match source {
        Source::Sentinels { sentinels, .. } => match sentinels.len() {
            1 => found.add(
                "sentinels",
                "only one Sentinel is listed: if it is down when we start, the master is not found",
                "list all of them",
            ),
            n if n % 2 == 0 => found.add(
                "sentinels",
                match n {
                    2 => "of 2 Sentinels both must agree, so one that is down stops every switch".into(),
                    n => format!("{n} Sentinels can lose no more of them than {} can", n - 1),
                },
                "run an odd number of Sentinels, at least 3, and list them all",
            ),
            _ => {}
        },
        Source::Roles { nodes, .. } if nodes.len() < 3 => found.add(
            "nodes",
            match nodes.len() {
                1 => "with one node there is nothing to switch to",
                _ => "of two nodes both must answer to make a majority: with one down, only lineage can prove a new master",
            },
            "list all nodes; three make a majority when one is down",
        ),
        Source::Static { nodes, .. } if nodes.len() == 1 => {
            found.add("node", "with one node there is nothing to fall back to", "add one with backup = true");
        }
        Source::Static { nodes, .. } if nodes.iter().all(|node| node.backup) => {
            found.add("node.backup", "all nodes are backups, so none of them is", "leave it out for the first one");
        }
        Source::Roles { .. } | Source::Static { .. } => {}
    }
}

/// A failover takes `down-after-milliseconds` (30 s unless it is set), up to 1.3 s to the promotion, and a second until
/// a majority of the Sentinels says so (measured on Redis 7.0).
const FAILOVER_MIN: Duration = Duration::from_secs(4);

fn times(found: &mut Found, service: &Service) {
    let settings = &service.topology;
    let fails_over = !matches!(settings.source, Source::Static { .. });
    if let Some(hold) = settings.hold_max.filter(|hold| fails_over && *hold < FAILOVER_MIN) {
        let risk = format!(
            "a hold of {} ends before a failover can: down-after-milliseconds and about 2 s",
            show_duration(hold)
        );
        found.add("hold", risk, "write \"auto\", or the Sentinels' down-after-milliseconds and 10 s");
    }
    if let Some(hold) = settings.hold_max.filter(|hold| *hold > Duration::ZERO && *hold <= settings.timeout) {
        let risk = format!("a hold of {} ends before a silent node is noticed", show_duration(hold));
        found.add("timeout", risk, "make `timeout` shorter than `hold`");
    }
}

fn durable(found: &mut Found, service: &Service) {
    let replicas = service.policy.durable.replicas as usize;
    if replicas == 0 {
        return;
    }
    match &service.topology.source {
        Source::Roles { nodes, .. } if replicas >= nodes.len() => {
            let risk =
                format!("{} nodes cannot have {replicas} replicas, so no write is acknowledged", nodes.len());
            found.add("durable", risk, "lower it, or add nodes");
        }
        Source::Static { .. } => {
            let risk = "whether a node of a static list has what another one acknowledged is not looked at";
            found.add("durable", risk, "use Sentinels, or `nodes`");
        }
        Source::Roles { .. } | Source::Sentinels { .. } => {}
    }
}

fn idle_names(found: &mut Found, service: &Service) {
    let Allow::These(commands) = &service.policy.allow else { return };
    let idle: Vec<&str> = commands.iter().map(|c| &**c).filter(|c| !refuses(c)).collect();
    if !idle.is_empty() {
        let problem = format!("{} is never refused, with this or without", idle.join(", "));
        found.add(
            "allow",
            problem,
            "`allow` only adds to what passes anyway: restrict clients with the nodes' ACL",
        );
    }
}

fn exposure(found: &mut Found, service: &Service) {
    let open: Vec<String> = service.listen.iter().filter(|l| !l.is_local()).map(Listen::to_string).collect();
    if service.listen.iter().any(|l| matches!(l, Listen::Tcp(address) if address.port() == 0)) {
        found.add("listen", "with port 0 nobody knows the port beforehand", "write a port");
    }
    if open.is_empty() {
        return;
    }
    let open = open.join(", ");
    match &service.policy.allow {
        Allow::All => found.add(
            "transparent",
            format!("whoever can reach {open} can shut down or reconfigure the nodes"),
            "listen on loopback, or use `allow` for what is needed",
        ),
        Allow::These(commands) => found.add(
            "allow",
            format!("whoever can reach {open} can use {}", commands.join(", ")),
            "listen on loopback, or restrict them with the nodes' ACL",
        ),
        Allow::Default => {}
    }
    let open_to_all = match &service.policy.users {
        None => Some("upstream_user"),
        Some(users) => users.newcomer().map(|_| "client_user.nopass"),
    };
    if let (Some(credential), Some(key)) = (&service.policy.upstream_user, open_to_all) {
        let user = credential.user.as_deref().unwrap_or(b"default").escape_ascii();
        found.add(
            key,
            format!("whoever can reach {open} acts as the user `{user}` without a password"),
            "keep others out with a firewall, or let clients authenticate themselves",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    const SOUND: &str =
        "listen = [\"127.0.0.1:1\"]\nsentinels = [\"a:1\", \"b:1\", \"c:1\"]\nmaster = \"m\"\n";

    /// The keys that a service of these lines is warned about.
    fn keys(lines: &str) -> Vec<&'static str> {
        let text = format!("[[service]]\nname = \"a\"\n{lines}");
        let config = parse(&text, "t.toml", &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
        warnings(&config).into_iter().map(|warning| warning.key).collect()
    }

    #[test]
    fn a_sound_service_gets_no_warning() {
        assert_eq!(keys(SOUND), [""; 0]);
        assert_eq!(keys(&SOUND.replace("127.0.0.1", "0.0.0.0")), [""; 0]);
    }

    #[test]
    fn each_doubt_is_told() {
        let listen = "listen = [\"127.0.0.1:1\"]\n";
        let open = SOUND.replace("127.0.0.1", "0.0.0.0");
        for (lines, expected) in [
            (SOUND.replace(", \"c:1\"", ""), "sentinels"),
            (SOUND.replace(", \"b:1\", \"c:1\"", ""), "sentinels"),
            (format!("{SOUND}hold = \"3s\""), "hold"),
            (format!("{SOUND}hold = \"5s\"\ntimeout = \"5s\""), "timeout"),
            (SOUND.replace("127.0.0.1:1", "127.0.0.1:0"), "listen"),
            (format!("{open}transparent = true"), "transparent"),
            (format!("{open}allow = [\"DEBUG\"]"), "allow"),
            (format!("{SOUND}allow = [\"get\", \"CLUSTER\"]"), "allow"),
            (format!("{open}upstream_password = \"x\""), "upstream_user"),
            (
                format!(
                    "{open}upstream_password = \"x\"\nclient_user = [{{ name = \"default\", nopass = true }}]"
                ),
                "client_user.nopass",
            ),
            (format!("{listen}nodes = [\"a:1\"]"), "nodes"),
            (format!("{listen}nodes = [\"a:1\", \"b:1\"]"), "nodes"),
            (format!("{listen}[[service.node]]\naddress = \"a:1\""), "node"),
            (
                format!(
                    "{listen}node = [{{address = \"a:1\", backup = true}}, {{address = \"b:1\", backup = true}}]"
                ),
                "node.backup",
            ),
        ] {
            assert_eq!(keys(&lines), [expected], "{lines}");
        }
    }

    #[test]
    fn what_is_dangerous_on_a_network_is_fine_on_loopback() {
        assert_eq!(keys(&format!("{SOUND}transparent = true\nupstream_password = \"x\"")), [""; 0]);
    }

    #[test]
    fn who_authenticates_to_pointsman_is_no_doubt() {
        let open = SOUND.replace("127.0.0.1", "0.0.0.0");
        let user = "client_user = [{ name = \"app\", nopass = true }]";
        assert_eq!(keys(&format!("{open}upstream_password = \"x\"\n{user}")), [""; 0]);
    }

    #[test]
    fn names_that_allow_something_are_no_doubt() {
        assert_eq!(keys(&format!("{SOUND}allow = [\"debug\", \"CLUSTER\", \"client|pause\"]")), [""; 0]);
    }

    #[test]
    fn a_warning_says_whose_it_is_and_what_to_do() {
        let text = format!(
            "admin = \"0.0.0.0:9400\"\n[[service]]\nname = \"a\"\n{}",
            SOUND.replace(", \"c:1\"", "")
        );
        let config = parse(&text, "t.toml", &|_| None).expect("a right configuration");
        let lines: Vec<String> = warnings(&config).iter().map(Warning::to_string).collect();
        assert_eq!(
            lines,
            [
                "`admin`: the admin listener asks for no password, and is reachable from other hosts; \
                 bind it to 127.0.0.1, or keep others out with a firewall",
                "service \"a\": `sentinels`: of 2 Sentinels both must agree, so one that is down stops every switch; \
                 run an odd number of Sentinels, at least 3, and list them all",
            ]
        );
    }
}
