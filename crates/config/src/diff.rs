//! The difference of two configurations: what a reload has to do.
use crate::error::{Error, Errors, Place};
use crate::{Config, Listen, Service};
use pointsman_core::topology::snapshot::ServiceId;

/// What has to be done to get from one configuration to another. Close the listeners that go before opening those
/// that come: an address can move from one service to another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// Services of the new configuration whose names the old one does not have.
    pub added: Vec<ServiceId>,
    /// Services of the old configuration whose names the new one does not have.
    pub removed: Vec<ServiceId>,
    /// Services of both that differ.
    pub changed: Vec<Changed>,
    /// Services that are the same in both; nothing of theirs may be touched.
    pub unchanged: Vec<ServiceId>,
    /// Keys of the process that differ, and that a reload can apply: `log.level`, `shutdown_grace`.
    pub process: Vec<&'static str>,
    /// Keys that differ, and that only a restart can apply; the process goes on with their old values.
    pub restart: Vec<&'static str>,
}

/// How a service of both configurations differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    /// Which; the same number in both.
    pub id: ServiceId,
    /// Listeners to close. Their clients stay.
    pub close: Vec<Listen>,
    /// Listeners to open.
    pub open: Vec<Listen>,
    /// Whether the workers' part differs.
    pub policy: bool,
    /// Whether the topology's part differs.
    pub topology: bool,
    /// Whether it differs in how the master is known (other Sentinels, another name, other nodes), which needs proof
    /// anew; with `topology` alone only credentials or times differ.
    pub source: bool,
}

impl Change {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Change { unchanged: self.unchanged.clone(), ..Change::default() }
    }
}

/// How to get from `old` to `new`, and `new` with the numbers of `old`: a service keeps its number as long as it keeps
/// its name, and a number is never given to another one while the process lives.
///
/// # Errors
/// The numbers are used up: there were 65,536 services over the life of the process.
pub fn diff(old: &Config, mut new: Config) -> Result<(Config, Change), Errors> {
    let mut change = Change::default();
    new.next_id = old.next_id;
    for service in &mut new.services {
        let before = old.services.iter().find(|before| before.name == service.name);
        let id = match before {
            Some(before) => before.id(),
            None => next_id(&mut new.next_id)?,
        };
        service.set_id(id);
        match before.map(|before| changed(before, service)) {
            None => change.added.push(id),
            Some(None) => change.unchanged.push(id),
            Some(Some(changed)) => change.changed.push(changed),
        }
    }
    let gone = |before: &&Service| !new.services.iter().any(|service| service.name == before.name);
    change.removed = old.services.iter().filter(gone).map(Service::id).collect();
    let (process, restart) = process(old, &new);
    change.process = process;
    change.restart = restart;
    Ok((new, change))
}

fn next_id(next: &mut u32) -> Result<ServiceId, Errors> {
    let id = u16::try_from(*next).map_err(|_| Error {
        place: Place::Input("reload"),
        problem: "65536 services were added since the start, and there are no more numbers for them".into(),
        remedy: "restart".into(),
    })?;
    *next += 1;
    Ok(ServiceId(id))
}

fn changed(old: &Service, new: &Service) -> Option<Changed> {
    let only_in = |a: &[Listen], b: &[Listen]| a.iter().filter(|l| !b.contains(l)).cloned().collect();
    let changed = Changed {
        id: new.id(),
        close: only_in(&old.listen, &new.listen),
        open: only_in(&new.listen, &old.listen),
        policy: old.policy != new.policy || old.durable_listen != new.durable_listen,
        topology: old.topology != new.topology,
        source: old.topology.source != new.topology.source,
    };
    let same = changed.close.is_empty() && changed.open.is_empty() && !changed.policy && !changed.topology;
    (!same).then_some(changed)
}

/// The keys of the process that differ: those that a reload applies, and those that it cannot.
fn process(old: &Config, new: &Config) -> (Vec<&'static str>, Vec<&'static str>) {
    let keys = [
        ("log.level", true, old.log.level != new.log.level),
        ("shutdown_grace", true, old.shutdown_grace != new.shutdown_grace),
        ("log.format", false, old.log.format != new.log.format),
        ("events.file", false, old.events.file != new.events.file),
        ("events.size", false, old.events.size_max != new.events.size_max),
        ("workers", false, old.workers != new.workers),
        ("admin", false, old.admin != new.admin),
    ];
    let of = |reloads| keys.iter().filter(|k| k.1 == reloads && k.2).map(|k| k.0).collect();
    (of(true), of(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn config(services: &[(&str, &str)]) -> Config {
        let service = |(name, rest): &(&str, &str)| format!("[[service]]\nname = \"{name}\"\n{rest}\n");
        let text: String = services.iter().map(service).collect();
        parse(&text, "t.toml", &|_| None).expect("a right configuration")
    }

    const A: &str = "listen = [\"127.0.0.1:1\"]\nnodes = [\"n:1\"]";
    const B: &str = "listen = [\"127.0.0.1:2\"]\nnodes = [\"n:1\"]";
    const C: &str = "listen = [\"127.0.0.1:3\"]\nnodes = [\"n:1\"]";

    fn go(old: &Config, new: &[(&str, &str)]) -> (Config, Change) {
        diff(old, config(new)).expect("numbers are left")
    }

    #[test]
    fn the_same_again_changes_nothing() {
        let (_, change) = go(&config(&[("a", A), ("b", B)]), &[("a", A), ("b", B)]);
        assert_eq!(change.unchanged, [ServiceId(0), ServiceId(1)]);
        assert!(change.is_empty());
    }

    #[test]
    fn a_service_keeps_its_number_when_others_come_and_go_before_it() {
        let old = config(&[("a", A), ("b", B)]);
        let (new, change) = go(&old, &[("c", C), ("b", B)]);
        assert_eq!((new.services[0].id(), new.services[1].id()), (ServiceId(2), ServiceId(1)));
        assert_eq!(new.services[0].topology.id, ServiceId(2));
        assert_eq!((change.added, change.removed), (vec![ServiceId(2)], vec![ServiceId(0)]));
        assert_eq!(change.unchanged, [ServiceId(1)]);
    }

    #[test]
    fn a_number_is_never_used_again() {
        let old = config(&[("a", A), ("b", B)]);
        let (without_b, _) = go(&old, &[("a", A)]);
        let (with_c, change) = go(&without_b, &[("a", A), ("c", C)]);
        assert_eq!(change.added, [ServiceId(2)]);
        let (_, change) = go(&with_c, &[("a", A), ("b", B), ("c", C)]);
        assert_eq!(change.added, [ServiceId(3)]);
    }

    #[test]
    fn numbers_that_are_used_up_are_an_error() {
        let mut old = config(&[("a", A)]);
        old.next_id = 65535;
        let (old, change) = go(&old, &[("a", A), ("b", B)]);
        assert_eq!(change.added, [ServiceId(65535)]);
        let error = diff(&old, config(&[("a", A), ("b", B), ("c", C)])).expect_err("no number is left");
        assert!(error.to_string().contains("restart"), "{error}");
    }

    #[test]
    fn each_part_that_differs_is_named() {
        let old = config(&[("a", A)]);
        let part = |rest: &str| {
            let (_, change) = go(&old, &[("a", rest)]);
            let [changed] = change.changed.try_into().expect("one changed");
            let Changed { close, open, policy, topology, source, .. } = changed;
            (close.len(), open.len(), policy, topology, source)
        };
        assert_eq!(part(B), (1, 1, false, false, false));
        assert_eq!(part(&format!("{A}\nlanes = 2")), (0, 0, true, false, false));
        assert_eq!(part(&format!("{A}\nhold = \"3s\"")), (0, 0, false, true, false));
        assert_eq!(part(&A.replace("n:1", "n:2")), (0, 0, false, true, true));
    }

    #[test]
    fn keys_of_the_process_that_differ_are_applied_or_need_a_restart() {
        use crate::keys::{KEYS, Section};
        let base = format!("[[service]]\nname = \"a\"\n{A}\n");
        let old = parse(&base, "t.toml", &|_| None).expect("a right configuration");
        for key in
            KEYS.iter().filter(|k| matches!(k.section, Section::Process | Section::Log | Section::Events))
        {
            let text = format!("{}\n{} = {}\n{base}", key.section.header(), key.name, key.example);
            let new = parse(&text, "t.toml", &|_| None).expect("a right configuration");
            let (_, change) = diff(&old, new).expect("numbers are left");
            let differ = if key.reloads { change.process } else { change.restart };
            assert_eq!(differ, [key.path()], "{text}");
        }
    }
}
