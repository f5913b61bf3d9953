//! Whether a switchover can be made, how, and why not.
use super::survey::{Node, Sentinel};
use crate::topology::outlook::{Known, Outlook};
use crate::topology::settings::HostPort;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

/// A replica that is further behind than this will not have caught up while everybody waits, in bytes.
const LAG_MAX: u64 = 1 << 20;
/// Writes are paused for no longer than this, whatever down-after is …
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// … and a pause that is shorter than this is not enough for a promotion.
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// How the master is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Means {
    /// `SENTINEL FAILOVER` at this Sentinel; we pause the writes and depose the old master.
    Forced(usize),
    /// `SENTINEL FAILOVER … COORDINATED` at this Sentinel: the master itself pauses, hands over, and follows.
    Coordinated(usize),
    /// `FAILOVER TO` at the master: the same without Sentinels.
    Failover,
}

/// What is to be done. Nodes and Sentinels by index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    pub(super) means: Means,
    pub(super) old: usize,
    /// Those that can be promoted; the first is the most likely.
    pub(super) candidates: Vec<usize>,
    /// Those that must not be promoted instead, and their priority.
    pub(super) others: Vec<(usize, u32)>,
    /// How long writes may be paused in all.
    pub(super) pause: Duration,
    /// How the deployment itself calls the first candidate.
    pub(super) called: HostPort,
}

/// What was learned.
pub(super) struct Facts<'a> {
    pub(super) outlook: &'a Outlook,
    pub(super) places: &'a [Known],
    pub(super) nodes: &'a [Node],
    pub(super) sentinels: &'a [(HostPort, Sentinel)],
    pub(super) to: Option<&'a str>,
}

/// Which of them is meant.
pub(super) fn find(places: &[Known], at: &HostPort) -> Option<usize> {
    let addr = at.literal();
    places.iter().position(|k| k.at == *at || (addr.is_some() && k.addr == addr))
}

/// Which of them an operator means.
pub(super) fn named(places: &[Known], name: &str) -> Option<usize> {
    places.iter().position(|k| k.at.to_string() == name || k.addr.is_some_and(|a| a.to_string() == name))
}

impl Facts<'_> {
    /// The plan, or why there is none.
    pub(super) fn plan(&self) -> Result<Plan, String> {
        if let Some(why) = &self.outlook.holds {
            return Err(format!("the service holds: {why}"));
        }
        let master = self.outlook.master.as_ref().ok_or("the master is not known")?;
        let old = find(self.places, master).ok_or("the master is not among the nodes that are observed")?;
        let target = match self.to {
            None => None,
            Some(name) => Some(named(self.places, name).ok_or_else(|| self.no_such_node(name))?),
        };
        if target == Some(old) {
            return Err(format!("nothing is to be gained: {master} is master already"));
        }
        self.answers(old)?;
        if !self.nodes[old].master {
            return Err(format!("{master} says that it is no master"));
        }
        if self.nodes[old].busy {
            return Err(format!("{master} is handing over already (master_failover_state)"));
        }
        match &self.outlook.monitored {
            Some(_) => self.by_sentinels(old, target),
            None => self.by_the_master(old, target),
        }
    }

    fn no_such_node(&self, name: &str) -> String {
        let all: Vec<String> = self.places.iter().map(|k| k.at.to_string()).collect();
        format!("there is no node {name}; there are {}", all.join(", "))
    }

    fn answers(&self, i: usize) -> Result<(), String> {
        let (at, node) = (&self.places[i].at, &self.nodes[i]);
        match (&node.lost, &node.denied) {
            (Some(why), _) => Err(why.clone()),
            (None, Some(why)) => Err(format!("{at} does not let us: {why}")),
            (None, None) => Ok(()),
        }
    }

    /// Whether this replica has what the master has, or almost.
    fn follows(&self, i: usize, old: usize) -> Result<(), String> {
        self.answers(i)?;
        let (at, node) = (&self.places[i].at, &self.nodes[i]);
        let follows = node.follows.as_ref().and_then(|of| find(self.places, of));
        if node.master || follows != Some(old) || !node.link_up {
            return Err(format!("{at} does not replicate from {}", self.places[old].at));
        }
        let behind = self.nodes[old].offset.saturating_sub(node.offset);
        if behind > LAG_MAX {
            return Err(format!("{at} is {behind} bytes behind, more than {LAG_MAX}"));
        }
        Ok(())
    }

    fn by_sentinels(&self, old: usize, target: Option<usize>) -> Result<Plan, String> {
        self.nothing_goes_on(old)?;
        let chosen = self.choose(old)?;
        let (at, sentinel) = &self.sentinels[chosen];
        let listed: Vec<(usize, u32, bool)> = sentinel
            .replicas
            .iter()
            .filter_map(|l| Some((find(self.places, &l.at)?, l.priority, l.good)))
            .filter(|(i, ..)| *i != old)
            .collect();
        let strangers = sentinel.replicas.iter().find(|l| l.good && find(self.places, &l.at).is_none());
        if let Some(l) = strangers {
            return Err(format!("Sentinel {at} may promote {}, which is not observed yet", l.at));
        }
        let able: Vec<usize> =
            listed.iter().filter(|(_, priority, good)| *good && *priority > 0).map(|(i, ..)| *i).collect();
        let (candidates, others) = match target {
            Some(target) if !able.contains(&target) => {
                return Err(format!("Sentinel {at} would not promote {}", self.places[target].at));
            }
            Some(target) => {
                let others = listed.iter().filter(|(i, priority, _)| *i != target && *priority > 0);
                (Vec::from([target]), others.map(|(i, priority, _)| (*i, *priority)).collect())
            }
            None => (able, Vec::new()),
        };
        let Some(first) = candidates.first() else {
            return Err(format!("Sentinel {at} knows no replica that it could promote"));
        };
        for i in &candidates {
            self.follows(*i, old)?;
        }
        for (i, _) in &others {
            self.answers(*i)?;
        }
        let called = sentinel.replicas.iter().find(|l| find(self.places, &l.at) == Some(*first));
        let called = called.map_or_else(|| self.places[*first].at.clone(), |l| l.at.clone());
        let pause = self.pause()?;
        let means = if sentinel.coordinated { Means::Coordinated(chosen) } else { Means::Forced(chosen) };
        Ok(Plan { means, old, candidates, others, pause, called })
    }

    /// Less than half the smallest down-after: while writes are paused, so are the Sentinels' own hellos on the master,
    /// and the PINGs behind them.
    fn pause(&self) -> Result<Duration, String> {
        let all = self.sentinels.iter().filter_map(|(at, s)| Some((s.down_after?, at)));
        let (down_after, at) = all.min().ok_or("no Sentinel tells its down-after-milliseconds")?;
        let pause = (down_after * 9 / 20).min(PAUSE_MAX);
        if pause < PAUSE_MIN {
            let ms = down_after.as_millis();
            return Err(format!(
                "down-after-milliseconds {ms} of Sentinel {at} is too short for pausing writes without being taken for down"
            ));
        }
        Ok(pause)
    }

    fn nothing_goes_on(&self, old: usize) -> Result<(), String> {
        let fit = |s: &&(HostPort, Sentinel)| s.1.lost.is_none() && self.names(&s.1) == Some(old);
        let (agree, all) = (self.sentinels.iter().filter(fit).count(), self.sentinels.len());
        if agree < self.outlook.majority {
            let why = self.sentinels.iter().find_map(|(_, s)| s.lost.clone());
            let why = why.map_or(String::new(), |w| format!("; {w}"));
            let need = self.outlook.majority;
            return Err(format!(
                "only {agree} of {all} Sentinels answer and name {}, {need} are needed{why}",
                self.places[old].at
            ));
        }
        for (at, s) in self.sentinels.iter().filter(|(_, s)| s.lost.is_none()) {
            if !s.calm() {
                return Err(format!("Sentinel {at} is not calm about the master: {}", s.flags));
            }
        }
        Ok(())
    }

    fn names(&self, s: &Sentinel) -> Option<usize> {
        find(self.places, s.names.as_ref()?)
    }

    /// The first Sentinel that can be asked.
    fn choose(&self, old: usize) -> Result<usize, String> {
        let mut why = String::from("no Sentinel can be asked");
        for (i, (at, s)) in self.sentinels.iter().enumerate() {
            why = match (&s.lost, &s.denied) {
                (Some(lost), _) => lost.clone(),
                (None, Some(denied)) => format!("Sentinel {at} does not let us: SENTINEL FAILOVER: {denied}"),
                _ if s.tilt => format!("Sentinel {at} does not act, because its clock jumped (TILT)"),
                _ if self.names(s) != Some(old) => format!("Sentinel {at} names another master"),
                _ => return Ok(i),
            };
        }
        Err(why)
    }

    fn by_the_master(&self, old: usize, target: Option<usize>) -> Result<Plan, String> {
        let newest = || {
            let fit = |i: &usize| *i != old && self.follows(*i, old).is_ok();
            let priority = |i: &usize| self.nodes[*i].priority != Some(0);
            (0..self.nodes.len()).filter(|i| fit(i) && priority(i)).max_by_key(|i| self.nodes[*i].offset)
        };
        let chosen = match target {
            Some(target) => target,
            None => newest().ok_or_else(|| self.nobody(old))?,
        };
        self.follows(chosen, old)?;
        let place = &self.places[chosen];
        let same = |l: &&HostPort| **l == place.at || (place.addr.is_some() && l.literal() == place.addr);
        let called = self.nodes[old].replicas.iter().find(same);
        let called = called.ok_or_else(|| {
            format!("{} does not list {} among its replicas", self.places[old].at, place.at)
        })?;
        let candidates = Vec::from([chosen]);
        let called = called.clone();
        Ok(Plan { means: Means::Failover, old, candidates, others: Vec::new(), pause: PAUSE_MAX, called })
    }

    fn nobody(&self, old: usize) -> String {
        let why = (0..self.nodes.len()).filter(|i| *i != old).find_map(|i| self.follows(i, old).err());
        let why = why.map_or(String::new(), |w| format!(": {w}"));
        format!("nothing is to be gained: there is no replica that could take over{why}")
    }
}
