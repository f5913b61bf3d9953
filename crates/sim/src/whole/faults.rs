//! What goes wrong in a history.
use super::errand::Wish;
use super::proxy::Proxy;
use super::{Blindfold, Event, Whole};
use crate::rng::Rng;
use std::time::Duration;

/// Something that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Fault {
    /// The master's process is killed (F1); it is started again later.
    Kill,
    /// The master's process is stopped for a while (F2).
    Stop,
    /// The master runs a script: it says nothing, and after so many milliseconds nothing but `-BUSY`.
    Script(u64),
    /// The master is cut off from all but us (F3).
    Aside,
    /// We and the master's host are cut off from all others (F3b).
    Inside,
    /// The master is cut off from everybody (F6).
    Alone,
    /// The master is cut off from its replicas, and from nobody else.
    Unfollowed,
    /// `SENTINEL FAILOVER` (F4).
    Force,
    /// `SENTINEL FAILOVER … COORDINATED`, where the servers know it.
    Coordinate,
    /// All Sentinels but one, or all, are killed (F5, F7).
    Sentinels { all: bool },
    /// A Sentinel's process is stopped.
    StopSentinel,
    /// The replicas, or one, are killed, or stopped (F10).
    Replicas { all: bool, kill: bool },
    /// The master's process is killed and started at once.
    Restart,
    /// A control plane stalls, in milliseconds.
    Stall(u64),
    /// A whole proxy is stopped, in milliseconds.
    Suspend(u64),
    /// We cannot talk to the Sentinels.
    Deaf,
    /// Any two cannot talk.
    Pair,
    /// A replica gets its master's stream in pieces so far apart, in milliseconds.
    Lag(u64),
    /// `pointsman switchover` (F4s), to the replica of this rank if one is named.
    Switch(Option<usize>),
    /// `pointsman pause`, for so many milliseconds, and `resume` after so many.
    Pause(u64, u64),
    /// A Sentinel's process is killed: the one that leads a failover, if one does.
    Leader,
    /// A proxy's process is killed (F9); another is started after so many milliseconds.
    Crash(u64),
}

impl Fault {
    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Stop => "stop",
            Fault::Script(_) => "script",
            Fault::Aside => "aside",
            Fault::Inside => "inside",
            Fault::Alone => "alone",
            Fault::Unfollowed => "unfollowed",
            Fault::Force => "force",
            Fault::Coordinate => "coordinate",
            Fault::Sentinels { all: true } => "all Sentinels die",
            Fault::Sentinels { all: false } => "most Sentinels die",
            Fault::StopSentinel => "a Sentinel stops",
            Fault::Replicas { .. } => "replicas",
            Fault::Restart => "restart",
            Fault::Stall(_) => "stall",
            Fault::Suspend(_) => "suspend",
            Fault::Deaf => "deaf",
            Fault::Pair => "pair",
            Fault::Lag(_) => "lag",
            Fault::Switch(None) => "switchover",
            Fault::Switch(Some(_)) => "switchover to",
            Fault::Pause(..) => "pause",
            Fault::Leader => "a leader dies",
            Fault::Crash(_) => "crash",
        }
    }

    /// Whether clients may not notice it, but for a pause.
    pub(super) fn is_mild(self) -> bool {
        use Fault::{Coordinate, Deaf, Force, Lag, Leader, Pause, Replicas, Sentinels};
        use Fault::{Stall, StopSentinel, Suspend, Switch, Unfollowed};
        let of_sentinels =
            matches!(self, Force | Coordinate | Switch(_) | Sentinels { .. } | StopSentinel | Leader);
        let of_nodes = matches!(self, Replicas { .. } | Unfollowed | Lag(_));
        of_sentinels || of_nodes || matches!(self, Stall(_) | Suspend(_) | Deaf | Pause(..))
    }

    /// Whether it brings nobody to promote another node, but for a switchover that does.
    pub(super) fn is_gentle(self) -> bool {
        use Fault::{Crash, Deaf, Lag, Leader, Pause, Stall, Suspend, Switch};
        matches!(self, Switch(_) | Crash(_) | Deaf | Lag(_) | Leader | Pause(..) | Stall(_) | Suspend(_))
    }
}

/// Nobody follows any more, though nobody is gone.
const NOBODY: Fault = Fault::Replicas { all: true, kill: false };
/// For so long, in microseconds, that whoever waits for one gives up.
const LONG: u64 = 3_500_000;

fn any(rng: &mut Rng) -> Fault {
    match rng.below(19) {
        0 => Fault::Kill,
        1 => silence(rng),
        2 => Fault::Aside,
        3 => Fault::Inside,
        4 => Fault::Alone,
        5 => Fault::Force,
        6 => {
            if rng.chance(50) {
                Fault::Force
            } else {
                Fault::Coordinate
            }
        }
        7 => Fault::Sentinels { all: rng.chance(50) },
        8 => Fault::StopSentinel,
        9 => Fault::Replicas { all: rng.chance(60), kill: rng.chance(50) },
        10 => Fault::Restart,
        11 => stall(rng),
        12 => Fault::Suspend(rng.between(50, 2500)),
        13 => Fault::Deaf,
        14 => Fault::Pair,
        15 => Fault::Lag(rng.between(20, 400)),
        16 => pause(rng),
        17 => Fault::Unfollowed,
        _ => Fault::Crash(rng.between(50, 600)),
    }
}

/// The master stands still; or it only seems so, for the script that it runs.
fn silence(rng: &Rng) -> Fault {
    let mut own = rng.clone();
    if own.chance(50) { Fault::Stop } else { Fault::Script(own.between(10, 2000)) }
}

fn pause(rng: &mut Rng) -> Fault {
    Fault::Pause(rng.between(100, 1500), rng.between(50, 2000))
}

fn switch(rng: &mut Rng) -> Fault {
    Fault::Switch(if rng.chance(40) { Some(rng.index(2)) } else { None })
}

/// A switchover, and what may go wrong in the middle of it.
fn planned(rng: &mut Rng, first: u64) -> Vec<(u64, Fault)> {
    let switch = (first, switch(rng));
    let until = match switch.1 {
        // The steps up to the order take a few milliseconds,
        _ if rng.chance(30) => 6_000,
        // and with a node that is named it waits for the Sentinel's INFO before.
        Fault::Switch(Some(_)) => 1_400_000,
        _ => 400_000,
    };
    let then = first + rng.below(until);
    match rng.below(10) {
        0..3 => vec![switch],
        3 => vec![(first.saturating_sub(rng.below(150_000)), Fault::Lag(rng.between(20, 400))), switch],
        4 => vec![switch, (then, if rng.chance(60) { Fault::Leader } else { Fault::StopSentinel })],
        5 => vec![switch, (then, Fault::Crash(rng.between(50, 600)))],
        6 => vec![
            switch,
            (then, if rng.chance(50) { stall(rng) } else { Fault::Suspend(rng.between(50, 2500)) }),
        ],
        7 => vec![switch, (then, if rng.chance(50) { Fault::Kill } else { Fault::Restart })],
        8 if rng.chance(50) => vec![switch, (then, pause(rng))],
        // By both of two proxies at once, if there are two.
        8 => vec![switch, (first + rng.below(1_500), self::switch(rng))],
        _ if rng.chance(30) => {
            // Until it is given up, what comes last heals nothing.
            vec![switch, (then, NOBODY), (then + LONG, Fault::Lag(20))]
        }
        _ => vec![switch, (then, any(rng))],
    }
}

fn stall(rng: &mut Rng) -> Fault {
    Fault::Stall(rng.between(50, 2500))
}

/// What goes wrong in a history, and when. What is to be caught is given the chance.
pub(super) fn plan(rng: &mut Rng, blindfold: Blindfold) -> Vec<(u64, Fault)> {
    let first = rng.between(150_000, 500_000);
    let soon = first + rng.between(0, 600_000);
    let late = first + rng.between(0, 1_500_000);
    match blindfold {
        Blindfold::Stages => vec![(first, Fault::Force)],
        Blindfold::Fence => vec![(first, if rng.chance(50) { Fault::Aside } else { any(rng) })],
        Blindfold::Linger => vec![(first, Fault::Alone)],
        Blindfold::Wait | Blindfold::Guard | Blindfold::Silence => vec![(first, Fault::Aside)],
        Blindfold::Vouched => vec![(first, Fault::Unfollowed), (soon + 1_000_000, Fault::Aside)],
        Blindfold::Withheld => vec![(first, Fault::Stop), (soon, Fault::Suspend(rng.between(800, 2500)))],
        Blindfold::Lease => vec![(first, Fault::Aside), (soon, stall(rng))],
        Blindfold::UnpauseFirst | Blindfold::PauseBound | Blindfold::LastWords => {
            vec![(first, Fault::Switch(None))]
        }
        Blindfold::Coordinated => vec![(first, Fault::Coordinate)],
        Blindfold::CallOff => {
            let stopped = first + rng.below(400_000);
            vec![(first, Fault::Switch(None)), (stopped, NOBODY), (stopped + LONG, Fault::Lag(20))]
        }
        Blindfold::Offsets => vec![(first, Fault::Lag(rng.between(100, 400))), (soon, Fault::Switch(None))],
        Blindfold::Restore => vec![(first, Fault::Switch(Some(rng.index(2))))],
        _ if rng.chance(20) => planned(rng, first),
        _ if rng.chance(50) => vec![(first, any(rng))],
        _ => {
            let second = if rng.chance(50) { soon } else { late };
            vec![(first, any(rng)), (second, any(rng))]
        }
    }
}

impl Whole {
    fn master(&self) -> usize {
        let named = self.world.truth(self.now / 1000).map(|(n, _)| n);
        let claims = (0..self.stores.len()).find(|n| self.world.nodes[*n].of.is_none());
        named.or(claims).unwrap_or(0)
    }

    /// Cuts some off from all others, but for us if we are to see both sides.
    fn cut(&mut self, inside: &[usize], see_both: bool) {
        let us = self.world.us();
        for a in 0..=us {
            for b in 0..a {
                let apart = inside.contains(&a) != inside.contains(&b);
                if apart && !(see_both && (a == us || b == us)) {
                    self.world.set_cut(a, b, true);
                }
            }
        }
    }

    /// Something goes wrong.
    pub(super) fn fault(&mut self, fault: Fault) {
        let m = self.master();
        self.note(|| format!("fault {fault:?}; the master is node {m}"));
        let at = self.world.node_at(m);
        // The Sentinel on the master's host.
        let s = m % self.desks.len();
        let living: Vec<usize> = (0..self.proxies.len()).filter(|p| !self.proxies[*p].dead).collect();
        if living.is_empty() {
            return;
        }
        let p = living[self.rng.index(living.len())];
        match fault {
            Fault::Kill => self.kill_node(m),
            Fault::Stop => self.world.nodes[m].stopped = true,
            // To Sentinels, and to those who follow it, it is as one that is stopped.
            Fault::Script(ms) => {
                self.world.nodes[m].stopped = true;
                self.put(self.now + ms * 1000, Event::Busy(m));
            }
            Fault::Aside => self.cut(&[at, s], true),
            Fault::Alone => self.cut(&[at, s], false),
            Fault::Unfollowed => {
                let others: Vec<usize> = (0..self.stores.len()).filter(|n| *n != m).collect();
                others.into_iter().for_each(|n| self.world.set_cut(at, self.world.node_at(n), true));
            }
            Fault::Inside => {
                let us = self.world.us();
                self.cut(&[at, s, us], false);
            }
            Fault::Force => {
                let s = self.rng.index(self.desks.len());
                let _ = self.order_failover(s, false);
            }
            Fault::Coordinate => {
                let s = self.rng.index(self.desks.len());
                let coordinated = self.world.modern;
                let _ = self.order_failover(s, coordinated);
            }
            Fault::Sentinels { all } => {
                (usize::from(!all)..self.desks.len()).for_each(|s| self.kill_sentinel(s))
            }
            Fault::StopSentinel => {
                let s = self.rng.index(self.desks.len());
                self.world.sentinels[s].stopped = true;
            }
            Fault::Replicas { all, kill } => {
                let replicas: Vec<usize> = (0..self.stores.len()).filter(|n| *n != m).collect();
                for n in replicas.into_iter().take(if all { usize::MAX } else { 1 }) {
                    if kill {
                        self.kill_node(n);
                    } else {
                        self.world.nodes[n].stopped = true;
                    }
                }
            }
            Fault::Restart => {
                self.kill_node(m);
                self.world.restart_node(self.now / 1000, m);
                self.look(m);
            }
            Fault::Stall(ms) => self.proxies[p].stalled_until = self.now + ms * 1000,
            Fault::Suspend(ms) => self.proxies[p].stopped_until = self.now + ms * 1000,
            Fault::Deaf => {
                let us = self.world.us();
                (0..self.desks.len()).for_each(|s| self.world.set_cut(s, us, true));
            }
            Fault::Lag(ms) => {
                let r = (m + 1 + self.rng.index(self.stores.len() - 1)) % self.stores.len();
                self.stores[r].lag = ms * 1000;
            }
            Fault::Switch(to) => self.put(self.now, Event::Wish(p, Wish::Switch(to))),
            Fault::Pause(ms, resumed) => {
                self.put(self.now, Event::Wish(p, Wish::Pause(Duration::from_millis(ms))));
                self.put(self.now + resumed * 1000, Event::Wish(p, Wish::Resume));
            }
            Fault::Leader => {
                let leads = (0..self.desks.len()).find(|s| self.world.leads(*s));
                let s = leads.unwrap_or(self.rng.index(self.desks.len()));
                self.kill_sentinel(s);
            }
            Fault::Crash(ms) => self.crash(p, ms),
            Fault::Pair => {
                let all = self.world.us() + 1;
                let (a, b) = (self.rng.index(all), self.rng.index(all));
                if a != b {
                    self.world.set_cut(a, b, true);
                }
            }
        }
    }

    /// The process of a proxy is killed.
    fn crash(&mut self, p: usize, ms: u64) {
        if self.proxies[p].dead {
            return;
        }
        (self.proxies[p].dead, self.proxies[p].stopped_until) = (true, u64::MAX);
        self.leave_proxy(p);
        self.drop_errands(p);
        self.drop_conns(p);
        self.put(self.now + ms * 1000, Event::Start(p));
    }

    /// … and another is started in its place.
    pub(super) fn start_proxy(&mut self, dead: usize) {
        let (next, replicas) = (self.proxies.len(), self.stores.len() as u32 - 1);
        self.proxies.push(Proxy::new(self.at(), next, self.desks.len(), replicas, self.guards()));
        self.join_proxy(dead, next);
        self.put_right(dead, next);
        self.obey(next);
        self.wake_control(next, self.now + 1);
    }

    /// All is well again.
    pub(super) fn heal(&mut self) {
        self.note(|| "everything heals".into());
        self.healed = Some(self.now);
        self.world.heal();
        for n in 0..self.stores.len() {
            (self.stores[n].lag, self.stores[n].fed_at) = (0, 0);
            self.stores[n].busy = false;
            if !self.world.nodes[n].alive {
                self.world.restart_node(self.now / 1000, n);
                self.look(n);
            } else if std::mem::take(&mut self.world.nodes[n].stopped) {
                self.put(self.now + 1, Event::Runs(n));
            }
        }
        for s in 0..self.desks.len() {
            if !self.world.sentinels[s].alive {
                self.world.restart_sentinel(self.now / 1000, s);
            } else if std::mem::take(&mut self.world.sentinels[s].stopped) {
                self.sentinel_resumes(s);
            }
        }
        self.unstick();
    }
}
