//! One `[[service]]`, read and checked. What is wrong is noted with the reader, and reading goes on with a stand-in to
//! find further mistakes: a service that was read with errors never gets out of this crate.
use crate::address::{Listen, Wrong, parse_host_port, parse_listen};
use crate::allow::command_name;
use crate::error::quoted;
use crate::keys::{Section, Way};
use crate::reader::{Placed, Spot, Table};
use crate::rules::rules;
use crate::secret::credential;
use crate::units::show_size;
use crate::users::users;
use pointsman_core::policy::{Allow, Durable, Limits, Policy, Retry};
use pointsman_core::topology::settings::{
    Failback, Guarding, HostPort, Settings, Source, StaticNode, Trust, WithoutLease,
};
use pointsman_core::topology::snapshot::ServiceId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// One thing that clients connect to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Its name; no other service has it.
    pub name: Arc<str>,
    /// Where clients connect; at least one, and none that another service has.
    pub listen: Vec<Listen>,
    /// Those of them whose clients alone have durable writes; none: all have, if `policy.durable` says so.
    pub durable_listen: Vec<Listen>,
    /// What workers must know.
    pub policy: Policy,
    /// What the topology must know.
    pub topology: Settings,
}

impl Service {
    /// Its number; the same in the policy and the topology.
    pub fn id(&self) -> ServiceId {
        self.policy.id
    }

    /// Whether the writes of this listener's clients are durable.
    pub fn is_durable(&self, listen: &Listen) -> bool {
        let of_all = self.durable_listen.is_empty();
        self.policy.durable.replicas > 0 && (of_all || self.durable_listen.contains(listen))
    }

    pub(crate) fn set_id(&mut self, id: ServiceId) {
        self.policy.id = id;
        self.topology.id = id;
    }
}

/// A service, and the places that checks across services need.
pub(crate) struct Draft {
    pub(crate) service: Service,
    pub(crate) name: Spot,
    pub(crate) listen: Vec<Spot>,
}

/// Most listeners, Sentinels or nodes of one service.
const LIST_MAX: usize = 64;
/// The usual ports, for advice.
const SENTINEL_PORT: u16 = 26379;
const NODE_PORT: u16 = 6379;
/// Defaults that belong to one way of knowing the master, so that `Settings::new` cannot have them.
const START_WAIT: Duration = Duration::from_secs(10);
const RISE: u32 = 2;
const FALL: u32 = 3;
const FAILBACK_DRAIN: Duration = Duration::from_secs(10);

/// Reads a service.
pub(crate) fn read(table: &Table<'_>, id: ServiceId) -> Draft {
    let name = name(table);
    let (mut listeners, durable) = listeners(table);
    let durable_listen = durable.iter().map(|l| l.value.clone()).collect();
    listeners.extend(durable);
    let (listen, listen_spots) = listeners.into_iter().map(|l| (l.value, l.spot)).unzip();
    let topology = topology(table, id, &name);
    let mut policy = policy(table, id, &name);
    policy.tells_writes = topology.guard.is_some();
    policy.pass_readonly = matches!(topology.source, Source::Static { .. });
    let service = Service { name: name.into(), listen, durable_listen, policy, topology };
    Draft { service, name: table.spot("name"), listen: listen_spots }
}

/// Whether a service may have this name: it appears in log lines, labels and commands.
pub(crate) fn is_service_name(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(letter)
}

fn name(table: &Table<'_>) -> String {
    if !table.has("name") {
        table.missing("name");
    }
    let Some(Placed { value, spot }) = table.text("name") else { return String::new() };
    if !is_service_name(&value) {
        let remedy = "write 1 to 64 letters, digits, \".\", \"_\" and \"-\"";
        table.reader.wrong(spot, format!("{} cannot be the name of a service", quoted(&value)), remedy);
    }
    value
}

/// The listeners, and those for durable writes alone.
fn listeners(table: &Table<'_>) -> (Vec<Placed<Listen>>, Vec<Placed<Listen>>) {
    if !table.has("listen") {
        table.missing("listen");
    }
    let mode = socket_mode(table);
    let of = |key| addresses(table, key, |text| parse_listen(text, mode));
    (of("listen"), of("durable_listen"))
}

/// What the service's Unix sockets get by default: their owner and group may connect.
const SOCKET_MODE: u32 = 0o660;

fn socket_mode(table: &Table<'_>) -> u32 {
    let Some(Placed { value, spot }) = table.text("socket_mode") else { return SOCKET_MODE };
    match u32::from_str_radix(&value, 8) {
        Ok(mode) if mode <= 0o777 && value.bytes().all(|b| b.is_ascii_digit()) => mode,
        _ => {
            let problem = format!("`socket_mode` {} is not a mode", quoted(&value));
            table.reader.wrong(
                spot,
                problem,
                "write permissions in octal from \"0\" to \"0777\", such as \"0660\"",
            );
            SOCKET_MODE
        }
    }
}

/// A list whose entries `parse` reads; entries that are wrong are noted and left out.
fn addresses<T>(table: &Table<'_>, name: &str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Vec<Placed<T>> {
    let list = table.list(name).unwrap_or_default();
    if list.len() > LIST_MAX {
        let problem = format!("`{name}` has {} entries", list.len());
        table.reader.wrong(table.spot(name), problem, format!("write at most {LIST_MAX}"));
    }
    let mut read = Vec::new();
    for Placed { value, spot } in list {
        match parse(&value) {
            Ok(value) => read.push(Placed { value, spot }),
            Err((problem, remedy)) => table.reader.wrong(spot, problem, remedy),
        }
    }
    read
}

fn topology(table: &Table<'_>, id: ServiceId, name: &str) -> Settings {
    let mut settings = Settings::new(id, name, source(table));
    settings.node_credential = credential(table, "user", "password", "password_file");
    settings.sentinel_credential =
        credential(table, "sentinel_user", "sentinel_password", "sentinel_password_file");
    table.duration("interval", &mut settings.interval);
    table.duration("timeout", &mut settings.timeout);
    table.duration_or("hold", &mut settings.hold_max);
    table.flag("hold_reads", &mut settings.hold_reads);
    settings.replica_reads = table.word("held_reads") == Some("replica");
    if table.word("trust") == Some("majority") {
        settings.trust = Trust::Majority;
    }
    table.flag("demote", &mut settings.demote);
    settings.guard = guard(table, settings.guard);
    settings.fencing.without_lease = match table.word("without_lease") {
        Some("hold_all") => WithoutLease::HoldAll,
        Some("go_on") => WithoutLease::GoOn,
        _ => WithoutLease::HoldWrites,
    };
    table.flag("refused_is_dead", &mut settings.fencing.refused_is_dead);
    settings
}

/// The guard as written; `default` without a word of it.
fn guard(table: &Table<'_>, default: Option<Guarding>) -> Option<Guarding> {
    let mut on = true;
    table.flag("guard", &mut on);
    let mut guarding = default.unwrap_or_default();
    table.duration("guard_interval", &mut guarding.every);
    table.duration("guard_wait", &mut guarding.wait);
    default.and(on.then_some(guarding))
}

/// How it is known who is master. All keys of the other ways are read as well, for the mistakes in them.
fn source(table: &Table<'_>) -> Source {
    let sentinels = hosts(table, "sentinels", SENTINEL_PORT);
    let master = master(table);
    let nodes = hosts(table, "nodes", NODE_PORT);
    let mut start_wait = START_WAIT;
    table.duration("start_wait", &mut start_wait);
    let list = static_list(table);
    match way(table) {
        Way::Sentinels => Source::Sentinels { sentinels, master },
        Way::Roles => Source::Roles { nodes, start_wait },
        Way::Static => list,
    }
}

fn way(table: &Table<'_>) -> Way {
    let ways = [(Way::Sentinels, "sentinels"), (Way::Roles, "nodes"), (Way::Static, Section::Node.name())];
    let written: Vec<_> = ways.into_iter().filter(|(_, name)| table.has(name)).collect();
    let Some(&(way, first)) = written.first() else {
        no_way(table);
        return Way::Sentinels;
    };
    for (_, other) in &written[1..] {
        let problem =
            format!("{} and {} both say how the master is known", table.said(first), table.said(other));
        table.reader.wrong(table.spot(other), problem, "keep one of the two");
    }
    if written.len() == 1 {
        refuse_keys_of_other_ways(table, way);
    }
    if way == Way::Sentinels && !table.has("master") {
        table.missing("master");
    }
    way
}

fn no_way(table: &Table<'_>) {
    if table.has("master") {
        let (master, sentinels) = (table.said("master"), table.said("sentinels"));
        let example = if table.is_flags() { "10.0.0.11:26379,…" } else { "= [\"10.0.0.11:26379\", …]" };
        let problem = format!("{master} has a meaning only with {sentinels}");
        let remedy = format!("add {} {example}", sentinels.trim_matches('`'));
        table.reader.wrong(table.spot("master"), problem, remedy);
        return;
    }
    let remedy = if table.is_flags() {
        "add `--sentinel` and `--master`, or `--node`; or describe the service in a file and give that with `--config`"
    } else {
        "add `sentinels` and `master`, or `nodes`, or a `[[service.node]]` for each node"
    };
    table.reader.wrong(table.spot("sentinels"), "it is not said how the master is known", remedy);
}

fn refuse_keys_of_other_ways(table: &Table<'_>, way: Way) {
    for key in Section::Service.keys().filter(|key| table.has(key.name)) {
        if let Some(only) = key.only.filter(|only| *only != way) {
            let said = |way: Way| way.key().map_or_else(|| way.written().into(), |key| table.said(key));
            let problem = format!("{} has a meaning only with {}", table.said(key.name), said(only));
            table.reader.wrong(table.spot(key.name), problem, format!("remove it: there is {}", said(way)));
        }
    }
}

fn master(table: &Table<'_>) -> Arc<str> {
    let Some(Placed { value, spot }) = table.text("master") else { return "".into() };
    if value.is_empty() || value.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let problem = format!("{} cannot be the name of a master", quoted(&value));
        table.reader.wrong(
            spot,
            problem,
            "write the name from `sentinel monitor NAME …`, such as \"mymaster\"",
        );
    }
    value.into()
}

fn hosts(table: &Table<'_>, name: &str, port: u16) -> Vec<HostPort> {
    let hosts = addresses(table, name, |text| parse_host_port(text, port));
    refuse_twice(table, hosts.iter().map(|host| (&host.value, host.spot)));
    hosts.into_iter().map(|host| host.value).collect()
}

fn refuse_twice<'h>(table: &Table<'_>, hosts: impl Iterator<Item = (&'h HostPort, Spot)>) {
    let mut seen = BTreeSet::new();
    for (host, spot) in hosts {
        if !seen.insert(host) {
            table.reader.wrong(spot, format!("\"{host}\" is listed twice"), "list it once");
        }
    }
}

fn static_list(table: &Table<'_>) -> Source {
    let (mut rise, mut fall, mut drain) = (RISE, FALL, FAILBACK_DRAIN);
    table.number("rise", &mut rise);
    table.number("fall", &mut fall);
    table.duration("failback_drain", &mut drain);
    let failback = match table.word("failback") {
        Some("cut") => Failback::Cut,
        Some("drain") => Failback::Drain(drain),
        _ => Failback::Never,
    };
    if table.has("failback_drain") && !matches!(failback, Failback::Drain(_)) {
        let problem = "`failback_drain` has a meaning only with failback = \"drain\"";
        table.reader.wrong(table.spot("failback_drain"), problem, "remove it, or write failback = \"drain\"");
    }
    Source::Static { nodes: static_nodes(table), rise, fall, failback }
}

/// The nodes in order of preference: backups after all others, otherwise as in the file.
fn static_nodes(table: &Table<'_>) -> Vec<StaticNode> {
    let written = table.tables(Section::Node);
    if table.has("node") && !(1..=LIST_MAX).contains(&written.len()) {
        let problem = format!("there are {} nodes", written.len());
        table.reader.wrong(table.spot("node"), problem, format!("write 1 to {LIST_MAX} [[service.node]]"));
    }
    let mut nodes: Vec<_> = written.iter().filter_map(static_node).collect();
    refuse_twice(table, nodes.iter().map(|node| (&node.value.at, node.spot)));
    nodes.sort_by_key(|node| node.value.backup);
    nodes.into_iter().map(|node| node.value).collect()
}

fn static_node(table: &Table<'_>) -> Option<Placed<StaticNode>> {
    let mut backup = false;
    table.flag("backup", &mut backup);
    if !table.has("address") {
        table.missing("address");
    }
    let Placed { value, spot } = table.text("address")?;
    match parse_host_port(&value, NODE_PORT) {
        Ok(at) => Some(Placed { value: StaticNode { at, backup }, spot }),
        Err((problem, remedy)) => {
            table.reader.wrong(spot, problem, remedy);
            None
        }
    }
}

fn policy(table: &Table<'_>, id: ServiceId, name: &str) -> Policy {
    let mut policy = Policy::new(id, name);
    table.number("lanes", &mut policy.lanes_per_node);
    table.number("shared", &mut policy.shared_max);
    table.number("pinned", &mut policy.pinned_max);
    table.number("clients", &mut policy.clients_max);
    table.duration_or("client_idle", &mut policy.client_idle);
    table.duration("upstream_idle", &mut policy.upstream_idle);
    table.duration("connect_timeout", &mut policy.connect_timeout);
    policy.retry = match table.word("retry") {
        Some("none") => Retry::None,
        Some("idempotent") => Retry::Idempotent,
        _ => Retry::Reads,
    };
    policy.durable = durable(table);
    policy.upstream_user = credential(table, "upstream_user", "upstream_password", "upstream_password_file");
    policy.users = users(table);
    policy.allow = allow(table);
    policy.rules = rules(table, &policy.allow);
    for limits in table.tables(Section::Limits) {
        read_limits(&limits, &mut policy.limits);
    }
    policy
}

fn durable(table: &Table<'_>) -> Durable {
    let mut durable = Durable::default();
    table.number("durable", &mut durable.replicas);
    table.duration("durable_timeout", &mut durable.timeout);
    let without = [
        ("durable_timeout", durable.timeout != Durable::default().timeout),
        ("durable_listen", table.list("durable_listen").is_some_and(|list| !list.is_empty())),
    ];
    for (key, written) in without {
        if durable.replicas == 0 && written {
            let problem = format!("`{key}` has a meaning only with `durable`");
            table.reader.wrong(table.spot(key), problem, "remove it, or write durable = 1");
        }
    }
    durable
}

fn allow(table: &Table<'_>) -> Allow {
    let mut transparent = false;
    table.flag("transparent", &mut transparent);
    let commands = addresses(table, "allow", command_name);
    match commands {
        commands if commands.is_empty() && transparent => Allow::All,
        commands if commands.is_empty() => Allow::Default,
        commands => {
            if transparent {
                let problem = "`allow` has no meaning with transparent = true, which allows all";
                table.reader.wrong(table.spot("allow"), problem, "keep one of the two");
            }
            Allow::These(commands.into_iter().map(|c| c.value).collect())
        }
    }
}

fn read_limits(table: &Table<'_>, limits: &mut Limits) {
    table.number("bulk", &mut limits.bulk_max);
    table.number("args", &mut limits.args_max);
    table.number("inline", &mut limits.inline_max);
    table.number("depth", &mut limits.depth_max);
    table.number("stream_from", &mut limits.stream_from);
    table.number("client_input", &mut limits.client_input_max);
    table.number("client_output_soft", &mut limits.client_output_soft);
    table.number("client_output_hard", &mut limits.client_output_hard);
    table.number("subscriber_output_hard", &mut limits.subscriber_output_hard);
    table.number("subscriber_output_soft", &mut limits.subscriber_output_soft);
    table.duration("subscriber_output_time", &mut limits.subscriber_output_time);
    table.number("in_flight", &mut limits.in_flight_max);
    table.number("upstream_queue", &mut limits.ring_max);
    table.number("subscriptions", &mut limits.subs_max);
    table.number("scripts", &mut limits.scripts_max);
    // A request that is smaller than `stream_from` must become complete in its client's input, and then fit a queue;
    // otherwise it would wait for ever.
    let ordered = [
        ("inline", limits.inline_max, "client_input", limits.client_input_max),
        ("stream_from", limits.stream_from, "client_input", limits.client_input_max),
        ("stream_from", limits.stream_from, "upstream_queue", limits.ring_max),
        ("client_output_soft", limits.client_output_soft, "client_output_hard", limits.client_output_hard),
        (
            "subscriber_output_soft",
            limits.subscriber_output_soft,
            "subscriber_output_hard",
            limits.subscriber_output_hard,
        ),
    ];
    for (small, lower, large, upper) in ordered {
        if lower > upper {
            let spot = table.spot(if table.has(small) { small } else { large });
            let (lower, upper) = (show_size(lower as u64), show_size(upper as u64));
            let problem = format!("`limits.{small}` ({lower}) is larger than `limits.{large}` ({upper})");
            table.reader.wrong(spot, problem, format!("write `{small}` and `{large}` in that order of size"));
        }
    }
}
