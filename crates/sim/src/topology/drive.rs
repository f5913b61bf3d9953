//! Plays the observers between a model world and a real topology machine.
use super::blindfold::Blindfold;
use super::guard::{self, Truth};
use super::world::{DOWN_AFTER, FAILOVER_TIMEOUT, TICK, World};
use crate::rng::Rng;
use pointsman_core::Now;
use pointsman_core::topology::observation::{
    Announced, Attached, Gone, Lineage, Listed, Observation, Pace, Peer, Report, Role, Seen, Stage, Target,
    TargetKind, View, Vote,
};
use pointsman_core::topology::settings::{Fencing, HostPort, Settings, Source, Trust, WithoutLease};
use pointsman_core::topology::snapshot::{Endpoint, ServiceId, ShardView, Term};
use pointsman_core::topology::{Act, Topology};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

/// How often a target is asked, calm and hurried, and how long an answer may take.
pub(super) const INTERVAL: u64 = 300;
pub(super) const HURRY: u64 = 60;
/// How often a Sentinel is asked for its flags whose events arrive, and its events' connection for a word.
const RELAXED: u64 = 90;
const PING_EVENTS: u64 = 600;
pub(super) const TIMEOUT: u64 = 500;

/// How many of a hundred events get lost, where there are any.
const EVENTS_LOST: u64 = 5;

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What went wrong, if anything.
    pub failure: Option<String>,
    /// Grants that began.
    pub grants: u64,
    /// Grants that began with a promotion, and how many of them a majority confirmed.
    pub promotions: u64,
    /// How many of those a majority confirmed.
    pub confirmed: u64,
    /// Releases to the same master.
    pub releases: u64,
    /// Deposed masters that were told whom to follow.
    pub demotions: u64,
    /// Stories that are over.
    pub stories: u64,
    /// What the machine told, with times, for people.
    pub log: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Sentinel(usize),
    Replicate,
    Poll(usize),
    Ping(usize),
    Ask(usize, u64 /* when it was sent */, bool /* for nothing but flags */),
    Hear(usize, usize /* index into the post */),
    Fault,
    Wake,
    End,
}

/// A target that is observed.
#[derive(Clone, Debug)]
struct Watched {
    target: Target,
    pace: Pace,
    connected: bool,
    on: bool,
    run: u64,
    /// When it was last asked for all.
    asked: u64,
    /// When the question was sent that was answered last: a connection keeps its order.
    answered: u64,
}

/// One run.
pub struct Drive {
    pub(super) now: u64,
    pub(super) world: World,
    pub(super) topology: Topology,
    pub(super) rng: Rng,
    /// For what is wanted: of its own, so that it does not shift what breaks.
    pub(super) whims: Rng,
    /// Whether somebody pauses the service: in some runs, as it hides what would be seen.
    pub(super) pauses: bool,
    /// Whether nothing breaks but Sentinels that die: in some dark runs, as those that stay whole for long are rare.
    pub(super) only_deaths: bool,
    pub(super) blindfold: Blindfold,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    posted: u64,
    targets: Vec<Watched>,
    post: Vec<Option<(Now, Seen, bool)>>,
    pub(super) view: Arc<ShardView>,
    /// The last true view and report of each that was delivered, and when it was asked for.
    pub(super) views: BTreeMap<usize, (u64, View)>,
    pub(super) reports: BTreeMap<usize, (u64, Report)>,
    /// The newest vote of each that was delivered, and by whose word: by the voter and by the one who asked for it.
    pub(super) votes: BTreeMap<(usize, usize), (u64, usize)>,
    /// Whom each selected in the failover that it is leading, and when that was heard.
    pub(super) selected: BTreeMap<usize, (usize, u64)>,
    /// Whether each last said that it was ordered to fail over.
    pub(super) forced: BTreeMap<usize, bool>,
    /// Whose replica each node last said that it was.
    pub(super) followed: BTreeMap<usize, usize>,
    /// The last node that was served with a majority's word, and its history.
    pub(super) served: Option<(usize, Box<str>)>,
    /// The node whose grant began with a promotion and is not confirmed, and since when.
    pub(super) provisional: Option<(usize, u64)>,
    /// Who may have promoted it.
    pub(super) leaders: Vec<usize>,
    pub(super) masters: BTreeMap<Term, Endpoint>,
    pub(super) runs: BTreeMap<Term, (usize, Option<Box<str>>)>,
    pub(super) epoch: u64,
    pub(super) eras: u64,
    /// A new count of epochs was accepted since the last majority's word.
    pub(super) new_era: bool,
    pub(super) astray_since: Option<u64>,
    pub(super) steady_since: Option<u64>,
    pub(super) faulty: bool,
    /// Only what a lease is for breaks: see `dark`.
    pub(super) dark: bool,
    /// Until when the control plane stands still.
    pub(super) stalled_until: u64,
    /// Since when nothing is wrong but that Sentinels are dead, and whether writes were open then.
    pub(super) healthy: Option<(u64, bool)>,
    pub(super) wakes_at: u64,
    pub(super) trusts_at: u64,
    pub(super) announces: bool,
    /// Until when an operator has paused the service.
    pub(super) paused_until: Option<u64>,
    pub(super) paused_since: u64,
    pub(super) guarded: bool,
    pub(super) truth: Truth,
    pub(super) outcome: Outcome,
}

pub(super) fn ms(d: u64) -> Duration {
    Duration::from_millis(d)
}

pub(crate) fn host(kind: TargetKind, i: usize) -> HostPort {
    match kind {
        TargetKind::Sentinel => HostPort { host: format!("10.0.1.{i}").into(), port: 26379 },
        TargetKind::Node | TargetKind::Guard => HostPort { host: format!("10.0.0.{i}").into(), port: 6379 },
    }
}

fn attached((i, acknowledged): (usize, u64)) -> Attached {
    Attached { at: host(TargetKind::Node, i), acknowledged }
}

/// A Sentinel's run id.
pub(crate) fn id_of(s: usize) -> Box<str> {
    format!("id{s}").into()
}

pub(super) fn index(t: &Target) -> usize {
    index_of(&t.at)
}

pub(crate) fn index_of(at: &HostPort) -> usize {
    at.host.rsplit('.').next().and_then(|n| n.parse().ok()).expect("model addresses end in an index")
}

pub(crate) fn node_of(e: &Endpoint) -> usize {
    match e {
        Endpoint::Tcp(a) => {
            a.to_string().split([':', '.']).nth(3).and_then(|n| n.parse().ok()).expect("as above")
        }
        Endpoint::Unix(_) => unreachable!("model nodes have addresses"),
    }
}

/// Runs one seed.
pub fn run(seed: u64, blindfold: Blindfold) -> Outcome {
    Drive::new(seed, blindfold, false).run()
}

/// Runs one seed of the faults that a lease is for.
pub fn run_dark(seed: u64, blindfold: Blindfold) -> Outcome {
    Drive::new(seed, blindfold, true).run()
}

impl Drive {
    fn new(seed: u64, blindfold: Blindfold, dark: bool) -> Drive {
        let mut rng = Rng::new(seed);
        let sentinels = [3, 3, 3, 5][rng.index(4)];
        let nodes = rng.between(2, 4) as usize;
        let quorum = rng.between(1, sentinels / 2 + 1) as usize;
        let mut world = World::new(sentinels as usize, nodes, quorum, Rng::new(rng.any()));
        // A minority may lie to us.
        if rng.chance(30) && !dark {
            for _ in 0..rng.between(1, (sentinels - 1) / 2) {
                let s = rng.index(sentinels as usize);
                world.sentinels[s].liar = true;
            }
        }
        let configured = if rng.chance(50) { sentinels as usize } else { 1 + rng.index(sentinels as usize) };
        let settings = Settings {
            id: ServiceId(0),
            name: "sim".into(),
            source: Source::Sentinels {
                sentinels: (0..configured).map(|i| host(TargetKind::Sentinel, i)).collect(),
                master: "mymaster".into(),
            },
            sentinel_credential: None,
            node_credential: None,
            interval: ms(INTERVAL),
            timeout: ms(TIMEOUT),
            hold_max: Some(ms(3000)),
            hold_reads: rng.chance(50),
            replica_reads: true,
            trust: if rng.chance(80) { Trust::Promotion } else { Trust::Majority },
            // Who is told at once does not stay behind for a missing rule to be seen by.
            demote: blindfold == Blindfold::None,
            guard: rng.chance(80).then(guard::guarding),
            fencing: Fencing {
                without_lease: match blindfold {
                    Blindfold::Leases => WithoutLease::GoOn,
                    _ => WithoutLease::HoldWrites,
                },
                refused_is_dead: blindfold != Blindfold::Refusals,
            },
        };
        let (now, guarded) = (1000, settings.guard.is_some());
        let topology = Topology::new(Now::from_millis(now), settings);
        let view = topology.view();
        Drive {
            now,
            world,
            topology,
            blindfold,
            queue: BinaryHeap::new(),
            posted: 0,
            targets: Vec::new(),
            post: Vec::new(),
            view,
            views: BTreeMap::new(),
            reports: BTreeMap::new(),
            votes: BTreeMap::new(),
            selected: BTreeMap::new(),
            forced: BTreeMap::new(),
            followed: BTreeMap::new(),
            served: None,
            provisional: None,
            leaders: Vec::new(),
            masters: BTreeMap::new(),
            runs: BTreeMap::new(),
            epoch: 0,
            eras: 0,
            new_era: false,
            astray_since: None,
            steady_since: None,
            faulty: true,
            dark,
            stalled_until: 0,
            healthy: None,
            wakes_at: 0,
            trusts_at: 0,
            announces: rng.chance(50) || dark,
            paused_until: None,
            paused_since: 0,
            whims: Rng::new(!seed),
            pauses: !dark && seed % 4 == 3,
            only_deaths: dark && seed % 8 == 7,
            guarded,
            truth: Truth::default(),
            outcome: Outcome::default(),
            rng,
        }
    }

    fn run(mut self) -> Outcome {
        for s in 0..self.world.sentinels.len() {
            let at = self.now + self.rng.below(TICK);
            self.put(at, Event::Sentinel(s));
        }
        self.put(self.now, Event::Replicate);
        let first = self.now + self.rng.between(0, 1500);
        self.put(first, Event::Fault);
        self.put(self.now + self.faults_for(), Event::End);
        self.obey();
        while let Some(Reverse((at, _, event))) = self.queue.pop() {
            self.now = self.now.max(at);
            self.happen(event);
            if self.outcome.failure.is_some() || self.recovered() {
                break;
            }
        }
        self.outcome
    }

    pub(super) fn put(&mut self, at: u64, event: Event) {
        self.posted += 1;
        self.queue.push(Reverse((at, self.posted, event)));
    }

    pub(super) fn fail(&mut self, what: String) {
        if self.outcome.failure.is_none() {
            self.outcome.failure = Some(format!("at {} ms: {what}", self.now));
        }
    }

    pub(super) fn log(&mut self, what: String) {
        self.outcome.log.push(format!("{:6} {what}", self.now));
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Sentinel(s) => {
                let all = 0..self.world.sentinels.len();
                let (before, awaited) = (self.world.says(now, s), self.world.awaits(s));
                let votes: Vec<_> = all.clone().map(|o| self.world.vote(o)).collect();
                let epochs: Vec<u64> = all.clone().map(|o| self.world.says(now, o).epoch).collect();
                self.world.tick(now, s);
                let after = self.world.says(now, s);
                let jitter = self.rng.below(10);
                self.put(now + TICK + jitter, Event::Sentinel(s));
                if self.announces {
                    for o in all {
                        if votes[o] != self.world.vote(o) {
                            self.announce_vote(o);
                        }
                        if epochs[o] != self.world.says(now, o).epoch {
                            self.announce_switch(o);
                        }
                    }
                    if (before.stage, before.selected) != (after.stage, after.selected) {
                        self.announce(s, after.stage, after.selected);
                    }
                }
                if let Some(n) =
                    self.world.awaits(s).filter(|_| awaited.is_none() && self.faulty && !self.dark)
                {
                    self.after_order(s, n);
                }
            }
            Event::Replicate => {
                self.world.replicate(now);
                self.put(now + 50, Event::Replicate);
                self.write();
            }
            Event::Poll(t) => self.poll(t),
            Event::Ping(t) => self.ping_events(t),
            Event::Ask(t, sent, short) => self.answer(t, sent, short),
            Event::Fault if self.dark => self.dark_fault(),
            Event::Fault => self.fault(),
            // A control plane that stands still hears and does everything later, in order.
            Event::Hear(..) | Event::Wake if now < self.stalled_until => self.put(self.stalled_until, event),
            Event::Hear(t, letter) => self.hear(t, letter),
            Event::Wake => {
                if self.topology.next_timeout().is_some_and(|at| at <= Now::from_millis(now)) {
                    self.topology.timeout(Now::from_millis(now));
                }
                self.obey();
            }
            Event::End => self.mend(),
        }
        self.check_always();
        if self.dark {
            self.check_dark();
        }
    }

    /// Makes sure that the machine is woken when it wants to be.
    fn wake(&mut self) {
        let Some(at) = self.topology.next_timeout() else { return };
        let at = at.as_micros().div_ceil(1000).max(self.now + 1);
        if self.wakes_at <= self.now || at < self.wakes_at {
            self.wakes_at = at;
            self.put(at, Event::Wake);
        }
    }

    // What observers do.

    fn poll(&mut self, t: usize) {
        let w = &self.targets[t];
        if !w.on {
            return;
        }
        // Who sees each failover at once is seldom misled by epochs: that rule is for the others.
        let pulses = w.target.kind == TargetKind::Sentinel && self.blindfold != Blindfold::Epochs;
        let guards = w.target.kind == TargetKind::Guard;
        let hurry = w.pace == Pace::Hurried;
        let whole = hurry || !(pulses || guards) || (pulses && self.now >= w.asked + INTERVAL);
        let every = match hurry || pulses {
            _ if guards => guard::EVERY,
            true if w.pace == Pace::Relaxed => RELAXED,
            true => HURRY,
            false => INTERVAL,
        };
        self.put(self.now + every, Event::Poll(t));
        if whole {
            self.ask(t);
        } else if pulses {
            self.send(t, true);
        }
    }

    /// The connection for a Sentinel's events answers, whether it brings any or not.
    fn ping_events(&mut self, t: usize) {
        if !self.targets[t].on {
            return;
        }
        self.put(self.now + PING_EVENTS, Event::Ping(t));
        let (at, alive, stopped, _) = self.reachable(t);
        if self.world.reach(at, self.world.us()) && alive && !stopped {
            self.letter(t, self.now, Seen::Listening(Ok(())), true);
        } else if !alive || self.rng.chance(30) {
            self.letter(t, self.now, Seen::Listening(Err("does not answer".into())), true);
        }
    }

    fn ask(&mut self, t: usize) {
        self.targets[t].asked = self.now;
        self.send(t, false);
    }

    fn send(&mut self, t: usize, short: bool) {
        let (now, delay) = (self.now, self.rng.between(0, 3));
        self.put(now + delay, Event::Ask(t, now, short));
    }

    fn reachable(&self, t: usize) -> (usize, bool, bool, u64) {
        let target = &self.targets[t].target;
        let i = index(target);
        let (at, alive, stopped, run) = match target.kind {
            TargetKind::Sentinel => (i, self.world.sentinels[i].alive, self.world.sentinels[i].stopped, 0),
            TargetKind::Node | TargetKind::Guard => match self.world.nodes.get(i) {
                Some(n) => (self.world.node_at(i), n.alive, n.stopped, n.run),
                // A lie: nobody answers there.
                None => (self.world.us(), true, true, 0),
            },
        };
        (at, alive, stopped, run)
    }

    /// A question has arrived, or its answer is waited for.
    fn answer(&mut self, t: usize, sent: u64, short: bool) {
        if !self.targets[t].on || sent < self.targets[t].answered {
            return;
        }
        if self.targets[t].target.kind == TargetKind::Guard {
            return self.probe(t, sent, index(&self.targets[t].target));
        }
        let (at, alive, stopped, run) = self.reachable(t);
        if !self.world.reach(at, self.world.us()) || (alive && stopped) {
            if self.now >= sent + TIMEOUT {
                self.targets[t].connected = false;
                return self.letter(t, sent, Seen::Gone(Gone::Timeout), false);
            }
            return self.put(self.now + 20, Event::Ask(t, sent, short));
        }
        if !alive {
            let was = std::mem::replace(&mut self.targets[t].connected, false);
            return self.letter(t, sent, Seen::Gone(if was { Gone::Closed } else { Gone::Refused }), false);
        }
        let w = &mut self.targets[t];
        if w.connected && w.run != run {
            w.connected = false;
            return self.letter(t, sent, Seen::Gone(Gone::Closed), false);
        }
        let new = !w.connected;
        if new {
            (w.connected, w.run) = (true, run);
            let addr = w.target.at.literal().expect("model hosts are addresses");
            let id = (w.target.kind == TargetKind::Sentinel).then(|| Seen::Id(id_of(at)));
            self.letter(t, sent, Seen::Connected(addr), false);
            id.into_iter().for_each(|id| self.letter(t, sent, id, true));
        }
        match self.targets[t].target.kind {
            TargetKind::Sentinel => self.answer_sentinel(t, sent, short && !new),
            TargetKind::Node | TargetKind::Guard => self.answer_node(t, sent),
        }
        self.targets[t].answered = sent;
    }

    fn answer_sentinel(&mut self, t: usize, sent: u64, short: bool) {
        let s = index(&self.targets[t].target);
        let says = self.world.says(self.now, s);
        let (pong_age, ping_age) = self.world.pings(self.now, s);
        // The lists are asked for first on a new connection, and then less often.
        if !short && (self.targets[t].answered == 0 || says.selected.is_some() || self.rng.chance(20)) {
            self.lists(t, sent, says.master, says.selected);
        }
        let liar = self.world.sentinels[s].liar && self.faulty;
        let view = View {
            epoch: says.epoch,
            master: host(TargetKind::Node, says.master),
            stage: says.stage,
            forced: says.forced,
            coordinated: false,
            quorum: self.world.quorum as u32,
            others: self.world.others(self.now, s) as u32,
            down_after: ms(DOWN_AFTER),
            failover_timeout: ms(FAILOVER_TIMEOUT),
            pong_age: ms(pong_age),
            ping_age: ms(ping_age),
            linked: true,
        };
        let view = if liar { self.lie(view) } else { view };
        let seen = if short { Seen::Flags(view.flags()) } else { Seen::View(view) };
        self.letter(t, sent, seen, !liar);
    }

    fn lists(&mut self, t: usize, sent: u64, master: usize, selected: Option<usize>) {
        let s = index(&self.targets[t].target);
        let known = self.world.others(self.now, s);
        let peers = (0..self.world.sentinels.len()).filter(|o| *o != s && known > 0).map(|o| {
            let (epoch, leader) = self.world.vote(o);
            Peer {
                id: id_of(o),
                at: host(TargetKind::Sentinel, o),
                up: self.world.sentinels[o].alive && self.world.reach(s, o),
                // Who is seen down was so for long.
                pong_age: Duration::MAX,
                // It knows the votes that it asked for.
                vote: (leader == s && epoch > 0).then(|| Vote { leader: id_of(leader), epoch }),
            }
        });
        let peers = peers.collect();
        let replicas = (0..self.world.nodes.len()).filter(|n| *n != master);
        let replicas =
            replicas.map(|n| Listed { at: host(TargetKind::Node, n), selected: selected == Some(n) });
        let replicas = replicas.collect();
        if self.blindfold != Blindfold::Majority {
            self.letter(t, sent, Seen::Peers(peers), false);
        }
        self.letter(t, sent, Seen::Replicas(replicas), false);
    }

    fn lie(&mut self, mut view: View) -> View {
        view.epoch = view.epoch.saturating_add(self.rng.below(4)).saturating_sub(1);
        let n = self.rng.index(self.world.nodes.len() + 1);
        view.master = host(TargetKind::Node, n);
        view.stage =
            [Stage::Calm, Stage::Calm, Stage::Suspects, Stage::Tries, Stage::Promoted][self.rng.index(5)];
        view.others = self.rng.below(9) as u32;
        view
    }

    fn answer_node(&mut self, t: usize, sent: u64) {
        let i = index(&self.targets[t].target);
        let n = &self.world.nodes[i];
        let role = match n.of {
            Some(m) => Role::Replica {
                of: host(TargetKind::Node, m),
                link_up: self.world.nodes[m].alive && !self.world.nodes[m].stopped,
            },
            None => Role::Master,
        };
        let lineage = Lineage {
            replid: n.replid.to_string().into(),
            replid2: n.replid2.map(|id| id.to_string().into()),
            second_offset: 1,
        };
        let report = Report {
            role,
            loading: n.loads_until > self.now,
            run_id: Some(format!("{i}-{}", n.run).into()),
            lineage: Some(lineage),
            offset: n.offset,
            attached: self.world.attached(i).into_iter().map(attached).collect(),
        };
        self.letter(t, sent, Seen::Report(report), true);
    }

    fn announce(&mut self, s: usize, stage: Stage, selected: Option<usize>) {
        if matches!(stage, Stage::Suspects | Stage::Tries | Stage::Acts) {
            let selected = selected.map(|n| host(TargetKind::Node, n));
            self.event(s, Announced { event: "+event".into(), stage: Some(stage), selected, vote: None });
        }
    }

    fn announce_switch(&mut self, s: usize) {
        self.event(s, Announced { event: "+switch-master".into(), stage: None, selected: None, vote: None });
    }

    fn announce_vote(&mut self, s: usize) {
        let (epoch, leader) = self.world.vote(s);
        let vote = Some(Vote { leader: id_of(leader), epoch });
        self.event(s, Announced { event: "+vote-for-leader".into(), stage: None, selected: None, vote });
    }

    fn event(&mut self, s: usize, a: Announced) {
        let target = Target::sentinel(host(TargetKind::Sentinel, s));
        let Some(t) = self.targets.iter().position(|w| w.on && w.target == target) else { return };
        // In the dark nothing but an event shows a vote that is given in sight.
        let lost = !self.dark && self.rng.chance(EVENTS_LOST);
        if self.world.reach(s, self.world.us()) && !lost {
            self.letter(t, self.now, Seen::Announced(a), true);
        }
    }

    /// Sends an observation on its way. `honest`: the checkers may believe it.
    pub(super) fn letter(&mut self, t: usize, sent: u64, seen: Seen, honest: bool) {
        self.post.push(Some((Now::from_millis(sent), seen, honest)));
        // Connections keep their order: what is sent in one moment arrives in one.
        self.put(self.now + 1, Event::Hear(t, self.post.len() - 1));
    }

    fn hear(&mut self, t: usize, letter: usize) {
        let Some((sent, seen, honest)) = self.post[letter].take() else { return };
        if !self.targets[t].on {
            return;
        }
        let from = self.targets[t].target.clone();
        self.note(index(&from), sent, &seen, honest);
        let seen = self.blind(&from, seen);
        self.topology.observe(Now::from_millis(self.now), Observation { from, sent, seen });
        self.obey();
    }

    /// What the checkers remember of what was delivered.
    fn note(&mut self, i: usize, sent: Now, seen: &Seen, honest: bool) {
        let sent = sent.as_micros() / 1000;
        if let Seen::View(v) = seen {
            self.forced.insert(i, v.forced);
        }
        match seen {
            Seen::View(v) if honest => {
                let over = v.stage < Stage::Acts && self.selected.get(&i).is_some_and(|(_, at)| sent > *at);
                if over {
                    self.selected.remove(&i);
                }
                self.views.insert(i, (sent, v.clone()));
            }
            Seen::View(_) => drop(self.views.remove(&i)),
            Seen::Peers(list) => {
                for p in list {
                    self.note_vote(index_of(&p.at), i, &p.vote);
                }
            }
            Seen::Replicas(list) => {
                let selected = list.iter().find(|l| l.selected);
                self.selected.extend(selected.map(|l| (i, (index_of(&l.at), self.now))));
            }
            Seen::Announced(a) => {
                self.note_vote(i, i, &a.vote);
                self.selected.extend(a.selected.iter().map(|at| (i, (index_of(at), self.now))));
            }
            Seen::Report(r) if self.reports.get(&i).is_none_or(|(t, _)| *t <= sent) => {
                if let Role::Replica { of, .. } = &r.role {
                    self.followed.insert(i, index_of(of));
                }
                self.reports.insert(i, (sent, r.clone()));
            }
            _ => {}
        }
    }

    fn note_vote(&mut self, voter: usize, by: usize, vote: &Option<Vote>) {
        let leader = vote.as_ref().and_then(|v| v.leader.strip_prefix("id")?.parse().ok());
        if let Some((v, leader)) = vote.as_ref().zip(leader) {
            self.votes.insert((voter, by), (v.epoch, leader));
        }
    }

    /// Does what the machine wants done.
    pub(super) fn obey(&mut self) {
        while let Some(act) = self.topology.poll() {
            match act {
                Act::Watch(target) => {
                    let w = Watched {
                        target,
                        pace: Pace::Usual,
                        connected: false,
                        on: true,
                        run: 0,
                        asked: 0,
                        answered: 0,
                    };
                    let listens = w.target.kind == TargetKind::Sentinel;
                    self.targets.push(w);
                    self.put(self.now, Event::Poll(self.targets.len() - 1));
                    if listens {
                        self.put(self.now, Event::Ping(self.targets.len() - 1));
                    }
                }
                Act::Unwatch(target) => self.of(&target).into_iter().for_each(|t| self.targets[t].on = false),
                Act::Ask(target) => self.of(&target).into_iter().for_each(|t| self.ask(t)),
                Act::Pace(target, pace) => {
                    if let Some(t) = self.of(&target) {
                        self.targets[t].pace = pace;
                        if pace == Pace::Hurried {
                            self.put(self.now, Event::Ask(t, self.now, false));
                        }
                    }
                }
                Act::Publish(view) => {
                    self.check_view(&view);
                    self.view = view;
                }
                Act::Demote { node, to } => self.demote(&node, &to),
                // It was told at once.
                Act::Spare(_) => {}
                Act::Story(e) => {
                    use pointsman_core::topology::status::EventKind;
                    self.check_story(&e);
                    self.outcome.grants += u64::from(e.kind == EventKind::Grant);
                    self.outcome.stories += u64::from(matches!(e.kind, EventKind::Switch | EventKind::Held));
                    self.new_era |= e.kind == EventKind::Era;
                    self.outcome.confirmed += u64::from(e.text.contains("no longer provisional"));
                    self.outcome.releases += u64::from(e.kind == EventKind::Release);
                    self.log(format!("{} {}: {}", e.term.0, e.kind.label(), e.text));
                }
            }
        }
        self.wake();
    }

    fn of(&self, target: &Target) -> Option<usize> {
        self.targets.iter().position(|w| w.on && w.target == *target)
    }
}
