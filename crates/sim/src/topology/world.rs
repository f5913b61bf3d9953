//! Model servers. Times are in milliseconds; those of Sentinel are scaled down, their proportions kept.
mod coordinated;
mod replicas;

use crate::rng::Rng;
pub use coordinated::Handover;
use pointsman_core::topology::observation::Stage;

/// After how long without a pong a Sentinel takes the master for down.
pub const DOWN_AFTER: u64 = 500;
/// How often Sentinels say hello (in the real one 2 s).
const HELLO: u64 = 500;
/// How often the leader of a failover, and others, look at a node's role (in the real one 1 s, and 10 s).
const INFO: u64 = 250;
/// After how long a node with the wrong role is converted (in the real one 8 s and more).
const CONVERT: u64 = 2000;
/// The failover-timeout.
pub const FAILOVER_TIMEOUT: u64 = 3000;
/// For how long a Sentinel does not act after its clock jumped (in the real one 30 s).
const TILT: u64 = 3000;
/// How often the master is pinged: down-after, if that is less than a second.
const PING: u64 = DOWN_AFTER;
/// For how long a Sentinel that was reset knows no others.
const RESET: u64 = 1500;
/// How often a Sentinel's timer runs.
pub const TICK: u64 = 50;
/// The priority that a node's file gives it.
pub const PRIORITY: u64 = 100;

/// A model node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its process lives.
    pub alive: bool,
    /// Its process is stopped (SIGSTOP).
    pub stopped: bool,
    /// Counts its processes.
    pub run: u64,
    /// Of whom it is a replica; `None`: it says master.
    pub of: Option<usize>,
    /// Since when it has this role.
    pub since: u64,
    /// Its replication history.
    pub replid: u64,
    /// The history that it followed before it was promoted.
    pub replid2: Option<u64>,
    /// Its offset.
    pub offset: u64,
    /// Until when it loads.
    pub loads_until: u64,
    /// `replica-priority`: the lowest is chosen first, 0 never.
    pub priority: u64,
    /// Until when its writes are paused (`CLIENT PAUSE … WRITE`).
    pub paused_until: u64,
    /// It hands over to another.
    pub handover: Option<Handover>,
    /// Its role by its own file, if that is another: whom it follows.
    pub file: Option<Option<usize>>,
}

/// Where a failover stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    WaitStart,
    Select,
    Order,
    WaitPromotion,
    Reconfigure,
}

/// Why a Sentinel fails over, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// The master is down, and it was elected.
    Elected,
    /// It was ordered to, and asks nobody.
    Forced,
    /// It was ordered to have the master hand over, and was elected for that.
    Coordinated,
}

#[derive(Clone, Debug)]
struct Failover {
    state: State,
    since: u64,
    epoch: u64,
    way: Way,
    /// Of an election that was held when it was ordered.
    votes: usize,
    selected: usize,
}

/// A model Sentinel.
#[derive(Clone, Debug)]
pub struct Sentinel {
    /// Its process lives.
    pub alive: bool,
    /// Its process is stopped (SIGSTOP).
    pub stopped: bool,
    /// Its config epoch.
    pub epoch: u64,
    current_epoch: u64,
    voted: u64,
    /// For whom it voted then.
    pub voted_for: usize,
    /// Until when it knows no other Sentinels (`SENTINEL RESET`).
    pub alone_until: u64,
    /// Whom it monitors as master.
    pub master: usize,
    /// When the last pong came, and since when a ping has waited for one.
    pong: u64,
    ping: Option<u64>,
    failover: Option<Failover>,
    tried_at: u64,
    ticked: u64,
    tilt_until: u64,
    hello_at: u64,
    info_at: u64,
    /// Since when it has reached each node, and when it last did.
    reaches: Vec<u64>,
    lost: Vec<u64>,
    /// Priority and offset of each node as its last INFO said, and when it asks again.
    seen: Vec<(u64, u64)>,
    seen_at: u64,
    /// Its hello waits in the master's pause, and its PINGs behind it.
    stuck: bool,
    /// It lies to us (not to the others).
    pub liar: bool,
}

/// What a Sentinel would say now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Says {
    /// Its config epoch.
    pub epoch: u64,
    /// Whom it names.
    pub master: usize,
    /// How far its failover is.
    pub stage: Stage,
    /// Whom it selected.
    pub selected: Option<usize>,
    /// Its failover was ordered.
    pub forced: bool,
}

/// A promotion by a Sentinel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promotion {
    /// When.
    pub at: u64,
    /// Of whom.
    pub node: usize,
    /// In place of whom.
    pub of: usize,
    /// By which Sentinel.
    pub by: usize,
    /// It was ordered, so that nobody was asked for a vote.
    pub forced: bool,
}

/// All servers, and the network between them and us.
#[derive(Clone, Debug)]
pub struct World {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The Sentinels.
    pub sentinels: Vec<Sentinel>,
    /// How many must take the master for down.
    pub quorum: usize,
    /// Which side of each cut an entity is on: Sentinels, then nodes, then us.
    cut: Vec<Vec<bool>>,
    /// The last promotion by Sentinels.
    pub promoted: Option<Promotion>,
    replids: u64,
    /// The servers know `COORDINATED` failovers.
    pub modern: bool,
    /// Nodes that were told to hand over just now, and those of which the clients were cut.
    pub told: Vec<usize>,
    /// (…)
    pub cut_off: Vec<usize>,
    /// Random choices.
    pub rng: Rng,
}

impl World {
    /// A healthy deployment: node 0 is master.
    pub fn new(sentinels: usize, nodes: usize, quorum: usize, mut rng: Rng) -> World {
        let node = |i: usize| Node {
            alive: true,
            stopped: false,
            run: 0,
            of: (i > 0).then_some(0),
            since: 0,
            replid: 1,
            replid2: None,
            offset: 1000,
            loads_until: 0,
            priority: PRIORITY,
            paused_until: 0,
            handover: None,
            file: None,
        };
        let sentinel = |_| Sentinel {
            alive: true,
            stopped: false,
            epoch: 0,
            current_epoch: 0,
            voted: 0,
            voted_for: 0,
            alone_until: 0,
            master: 0,
            pong: 0,
            ping: None,
            failover: None,
            tried_at: 0,
            ticked: 0,
            tilt_until: 0,
            hello_at: rng.below(HELLO),
            info_at: rng.below(INFO),
            reaches: vec![0; nodes],
            lost: vec![0; nodes],
            seen: vec![(PRIORITY, 0); nodes],
            seen_at: 0,
            stuck: false,
            liar: false,
        };
        let all = sentinels + nodes + 1;
        World {
            sentinels: (0..sentinels).map(sentinel).collect(),
            nodes: (0..nodes).map(node).collect(),
            quorum,
            cut: vec![vec![false; all]; all],
            promoted: None,
            replids: 1,
            modern: false,
            told: Vec::new(),
            cut_off: Vec::new(),
            rng,
        }
    }

    /// The index of a node in the network.
    pub fn node_at(&self, node: usize) -> usize {
        self.sentinels.len() + node
    }

    /// Our index in the network.
    pub fn us(&self) -> usize {
        self.sentinels.len() + self.nodes.len()
    }

    /// Whether two can talk.
    pub fn reach(&self, a: usize, b: usize) -> bool {
        !self.cut[a][b]
    }

    /// Cuts, or joins, two.
    pub fn set_cut(&mut self, a: usize, b: usize, cut: bool) {
        self.cut[a][b] = cut;
        self.cut[b][a] = cut;
    }

    /// Cuts one off from all others, or all but us.
    pub fn isolate(&mut self, a: usize, also_from_us: bool) {
        for b in 0..self.cut.len() {
            if b != a && (also_from_us || b != self.us()) {
                self.set_cut(a, b, true);
            }
        }
    }

    /// Joins everything.
    pub fn heal(&mut self) {
        self.cut.iter_mut().for_each(|row| row.fill(false));
    }

    fn fresh_replid(&mut self) -> u64 {
        self.replids += 1;
        self.replids
    }

    /// `REPLICAOF NO ONE`.
    pub fn promote(&mut self, now: u64, n: usize) {
        let id = self.fresh_replid();
        let node = &mut self.nodes[n];
        node.file = None;
        if node.of.take().is_some() {
            node.replid2 = Some(node.replid);
            node.replid = id;
            node.since = now;
        }
    }

    /// `REPLICAOF`.
    pub fn demote(&mut self, now: u64, n: usize, of: usize) {
        let node = &mut self.nodes[n];
        if n != of && node.of != Some(of) {
            (node.handover, node.file) = (None, None);
            node.of = Some(of);
            node.since = now;
        }
    }

    /// Starts a node's process again: with the role it had, and with or without its history.
    pub fn restart_node(&mut self, now: u64, n: usize) {
        let (id, keeps, loads) = (self.fresh_replid(), self.rng.chance(50), self.rng.below(400));
        let node = &mut self.nodes[n];
        node.run += 1;
        (node.alive, node.stopped, node.since, node.loads_until) = (true, false, now, now + loads);
        // Neither is in its file.
        (node.priority, node.paused_until, node.handover) = (PRIORITY, 0, None);
        node.of = node.file.take().unwrap_or(node.of);
        if node.of.is_none() {
            node.replid2 = keeps.then_some(node.replid);
            node.replid = id;
        }
    }

    /// Starts a Sentinel's process again, from its file.
    pub fn restart_sentinel(&mut self, now: u64, s: usize) {
        let s = &mut self.sentinels[s];
        // Its file has the promoted node as master (sentinelFlushConfig, sentinelGetCurrentMasterAddress).
        if let Some(f) = s.failover.take().filter(|f| f.state == State::Reconfigure) {
            s.master = f.selected;
        }
        (s.alive, s.stopped, s.pong, s.ping, s.ticked) = (true, false, now, Some(now), now);
    }

    /// A Sentinel is started again from the file that it had at the very beginning.
    pub fn restore(&mut self, now: u64, s: usize) {
        self.restart_sentinel(now, s);
        let s = &mut self.sentinels[s];
        (s.epoch, s.current_epoch, s.voted, s.master) = (0, 0, 0, 0);
    }

    /// All Sentinels are set up anew, without their files, for this master.
    pub fn redeploy(&mut self, now: u64, master: usize) {
        for s in &mut self.sentinels {
            (s.epoch, s.current_epoch, s.voted, s.master) = (0, 0, 0, master);
            (s.failover, s.pong, s.ping, s.alive, s.stopped) = (None, now, Some(now), true, false);
        }
    }

    /// `SENTINEL FAILOVER`: whether it begins.
    ///
    /// # Errors
    /// Why not.
    pub fn force(&mut self, now: u64, s: usize) -> Result<(), &'static str> {
        self.order(now, s, Way::Forced)
    }

    fn order(&mut self, now: u64, s: usize, way: Way) -> Result<(), &'static str> {
        if !self.acts(s) || self.sentinels[s].failover.is_some() {
            return Err("INPROG Failover already in progress");
        }
        if self.select(s).is_none() {
            return Err("NOGOODSLAVE No suitable replica to promote");
        }
        self.begin(now, s, way);
        Ok(())
    }

    /// `SENTINEL RESET`: it forgets the others until they say hello.
    pub fn reset(&mut self, now: u64, s: usize) {
        let me = &mut self.sentinels[s];
        (me.failover, me.alone_until) = (None, now + RESET);
    }

    /// The epoch of its newest vote, and for whom that was.
    pub fn vote(&self, s: usize) -> (u64, usize) {
        (self.sentinels[s].voted, self.sentinels[s].voted_for)
    }

    /// Whether it waits for the promotion that it ordered, and of whom.
    pub fn awaits(&self, s: usize) -> Option<usize> {
        let f = self.sentinels[s].failover.as_ref()?;
        (f.state == State::WaitPromotion).then_some(f.selected)
    }

    /// How many others it knows.
    pub fn others(&self, now: u64, s: usize) -> usize {
        if now < self.sentinels[s].alone_until { 0 } else { self.sentinels.len() - 1 }
    }

    /// A clock jump: the Sentinel does not act for a while.
    pub fn tilt(&mut self, now: u64, s: usize) {
        self.sentinels[s].tilt_until = now + TILT;
    }

    fn acts(&self, s: usize) -> bool {
        self.sentinels[s].alive && !self.sentinels[s].stopped
    }

    fn works(&self, n: usize) -> bool {
        self.nodes[n].alive && !self.nodes[n].stopped
    }

    /// A Sentinel and a node that can talk.
    fn linked(&self, s: usize, n: usize) -> bool {
        self.works(n) && self.reach(s, self.node_at(n))
    }

    fn down(&self, now: u64, s: usize) -> bool {
        self.sentinels[s].ping.is_some_and(|since| now - since > DOWN_AFTER)
    }

    /// Whether a Sentinel has nothing to do.
    pub fn calm(&self, now: u64, s: usize) -> bool {
        let me = &self.sentinels[s];
        me.failover.is_none() && now >= me.tilt_until && !self.down(now, s)
    }

    /// How old a Sentinel's last pong is, and for how long a ping of its waits already.
    pub fn pings(&self, now: u64, s: usize) -> (u64, u64) {
        let s = &self.sentinels[s];
        (now - s.pong, s.ping.map_or(0, |since| now - since))
    }

    /// Pings the master each second (sentinelSendPeriodicCommands); a new connection pings at once.
    fn ping(&mut self, now: u64, s: usize, answers: bool, refuses: bool) {
        let me = &mut self.sentinels[s];
        if refuses || now - me.pong >= PING {
            me.ping.get_or_insert(now);
        }
        if answers && me.ping.is_some() {
            (me.ping, me.pong) = (None, now);
        }
    }

    fn agreeing(&self, now: u64, s: usize) -> usize {
        let master = self.sentinels[s].master;
        let says = |o: usize| {
            o == s
                || (self.others(now, s) > 0
                    && self.acts(o)
                    && self.reach(s, o)
                    && self.sentinels[o].master == master
                    && self.down(now, o))
        };
        if self.down(now, s) { (0..self.sentinels.len()).filter(|o| says(*o)).count() } else { 0 }
    }

    /// What a Sentinel would say now.
    pub fn says(&self, now: u64, s: usize) -> Says {
        let me = &self.sentinels[s];
        let stage = match &me.failover {
            Some(f) => match f.state {
                State::WaitStart if f.way != Way::Forced => Stage::Tries,
                State::Reconfigure => Stage::Promoted,
                _ => Stage::Acts,
            },
            None if self.agreeing(now, s) >= self.quorum => Stage::Tries,
            None if self.down(now, s) => Stage::Suspects,
            None => Stage::Calm,
        };
        let selected =
            me.failover.as_ref().filter(|f| f.state as u8 >= State::Order as u8).map(|f| f.selected);
        let master = if stage == Stage::Promoted { selected.unwrap_or(me.master) } else { me.master };
        let forced = me.failover.as_ref().is_some_and(|f| f.way == Way::Forced);
        Says { epoch: me.epoch, master, stage, selected, forced }
    }

    /// Whether some replica would acknowledge what this node writes now.
    pub fn acknowledged(&self, n: usize) -> bool {
        let follows = |r: usize| self.nodes[r].of == Some(n) && self.reach(self.node_at(r), self.node_at(n));
        self.works(n) && (0..self.nodes.len()).any(|r| self.works(r) && follows(r))
    }

    /// The replicas that a node takes for attached, and how far they have acknowledged. One that is silent stays attached
    /// for longer than a run takes.
    pub fn attached(&self, n: usize) -> Vec<(usize, u64)> {
        let all = self.nodes.iter().enumerate();
        all.filter(|(_, r)| r.alive && r.of == Some(n)).map(|(i, r)| (i, r.offset)).collect()
    }

    /// Replicas follow their masters; masters take writes.
    pub fn replicate(&mut self, now: u64) {
        for n in 0..self.nodes.len() {
            if !self.works(n) {
                continue;
            }
            match self.nodes[n].of {
                None => self.nodes[n].offset += 10,
                Some(m) if self.works(m) && self.reach(self.node_at(n), self.node_at(m)) => {
                    let (replid, replid2, offset) =
                        (self.nodes[m].replid, self.nodes[m].replid2, self.nodes[m].offset);
                    if self.nodes[m].loads_until <= now && self.nodes[m].of.is_none() {
                        let node = &mut self.nodes[n];
                        (node.replid, node.replid2, node.offset) = (replid, replid2, offset);
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// A Sentinel's timer.
    pub fn tick(&mut self, now: u64, s: usize) {
        if !self.acts(s) {
            return;
        }
        if now - self.sentinels[s].ticked > 10 * TICK {
            self.tilt(now, s);
        }
        self.sentinels[s].ticked = now;
        for n in 0..self.nodes.len() {
            let linked = self.linked(s, n);
            let me = &mut self.sentinels[s];
            let at = if linked { &mut me.lost } else { &mut me.reaches };
            at[n] = now;
        }
        // A master that says for long that it is a replica is down (sentinelCheckSubjectivelyDown).
        let master = &self.nodes[self.sentinels[s].master];
        let wrong = master.of.is_some() && now - master.since > DOWN_AFTER + 2 * INFO;
        let m = self.sentinels[s].master;
        let refuses = !self.nodes[m].alive && self.reach(s, self.node_at(m));
        self.sentinels[s].stuck &= self.paused(now, m);
        let answers = self.linked(s, m) && !wrong && !self.sentinels[s].stuck;
        self.ping(now, s, answers, refuses);
        if now >= self.sentinels[s].hello_at {
            // It is published on the master, and a publication is a write to a pause.
            self.sentinels[s].stuck |= self.paused(now, m);
            self.hello(now, s);
        }
        if now < self.sentinels[s].tilt_until {
            return;
        }
        let info = now >= self.sentinels[s].info_at;
        if info {
            self.sentinels[s].info_at = now + INFO;
            self.see(now, s);
        }
        if self.sentinels[s].failover.is_some() {
            self.go_on(now, s, info);
        } else if self.agreeing(now, s) >= self.quorum && now >= self.sentinels[s].tried_at {
            self.begin(now, s, Way::Elected);
        } else if info && !self.down(now, s) {
            self.convert(now, s);
        }
    }

    fn begin(&mut self, now: u64, s: usize, way: Way) {
        let delay = self.rng.below(300);
        let me = &mut self.sentinels[s];
        me.current_epoch += 1;
        (me.voted, me.voted_for) = (me.current_epoch, s);
        me.tried_at = now + 2 * FAILOVER_TIMEOUT + delay;
        let epoch = me.current_epoch;
        me.failover =
            Some(Failover { state: State::WaitStart, since: now, epoch, way, votes: 0, selected: 0 });
    }

    /// The votes for a candidate: its own, and those of others that it can talk to and that have not voted.
    fn votes(&mut self, now: u64, s: usize, epoch: u64) -> usize {
        let mut votes = 1;
        for o in (0..self.sentinels.len()).filter(|o| *o != s) {
            if self.others(now, s) > 0 && self.acts(o) && self.reach(s, o) && self.sentinels[o].voted < epoch
            {
                let other = &mut self.sentinels[o];
                other.voted_for = s;
                (other.voted, other.current_epoch) = (epoch, other.current_epoch.max(epoch));
                let wait = self.rng.below(300);
                self.sentinels[o].tried_at = now + 2 * FAILOVER_TIMEOUT + wait;
                votes += 1;
            }
        }
        votes
    }

    fn go_on(&mut self, now: u64, s: usize, info: bool) {
        let Some(mut f) = self.sentinels[s].failover.clone() else { return };
        let waited = now - f.since;
        let master = self.sentinels[s].master;
        let next = match f.state {
            State::WaitStart if f.way == Way::Forced => Some(State::Select),
            State::WaitStart if waited == 0 || f.epoch < self.sentinels[s].current_epoch => None,
            State::WaitStart => {
                let need = (self.others(now, s).div_ceil(2) + 1).max(self.quorum);
                let votes = |w: &mut Self| match f.way {
                    Way::Coordinated => f.votes,
                    _ => w.votes(now, s, f.epoch),
                };
                (waited <= 2 * TICK && votes(self) >= need).then_some(State::Select)
            }
            State::Select => match self.select(s) {
                Some(n) => {
                    f.selected = n;
                    Some(State::Order)
                }
                None => return self.sentinels[s].failover = None,
            },
            State::Order if f.way == Way::Coordinated => {
                match self.tell_to_hand_over(now, s, f.selected, waited) {
                    Some(sent) => sent.then_some(State::WaitPromotion),
                    None => return self.sentinels[s].failover = None,
                }
            }
            State::Order if self.linked(s, f.selected) => {
                self.promote(now, f.selected);
                let (node, forced) = (f.selected, f.way == Way::Forced);
                self.promoted = Some(Promotion { at: now, node, of: master, by: s, forced });
                Some(State::WaitPromotion)
            }
            State::WaitPromotion
                if info && self.linked(s, f.selected) && self.nodes[f.selected].of.is_none() =>
            {
                self.sentinels[s].epoch = f.epoch;
                if f.way == Way::Coordinated {
                    self.cut_clients(s, f.selected);
                }
                self.sentinels[s].failover = Some(Failover { state: State::Reconfigure, since: now, ..f });
                return self.hello(now, s);
            }
            State::Reconfigure if info => {
                self.sentinels[s].failover = None;
                for n in (0..self.nodes.len()).filter(|n| *n != master && *n != f.selected) {
                    if self.linked(s, n) {
                        self.demote(now, n, f.selected);
                    }
                }
                return self.switch(now, s, f.selected);
            }
            _ => None,
        };
        match next {
            Some(state) => self.sentinels[s].failover = Some(Failover { state, since: now, ..f }),
            None if waited > FAILOVER_TIMEOUT => self.sentinels[s].failover = None,
            None => {}
        }
    }

    fn switch(&mut self, now: u64, s: usize, master: usize) {
        let me = &mut self.sentinels[s];
        (me.master, me.pong, me.ping, me.failover) = (master, now, Some(now), None);
    }

    /// Hello messages travel over the nodes that both can reach, which is as good as reaching each other.
    fn hello(&mut self, now: u64, s: usize) {
        self.sentinels[s].hello_at = now + HELLO;
        let says = self.says(now, s);
        let current = self.sentinels[s].current_epoch;
        for o in (0..self.sentinels.len()).filter(|o| *o != s) {
            let over = (0..self.nodes.len()).any(|n| self.linked(s, n) && self.linked(o, n));
            if !self.acts(o) || !(self.reach(s, o) || over) {
                continue;
            }
            self.sentinels[o].current_epoch = self.sentinels[o].current_epoch.max(current);
            if says.epoch > self.sentinels[o].epoch {
                self.sentinels[o].epoch = says.epoch;
                if says.master != self.sentinels[o].master {
                    self.switch(now, o, says.master);
                }
            }
        }
    }

    /// Nodes that have had the wrong role for long are given the right one.
    fn convert(&mut self, now: u64, s: usize) {
        let master = self.sentinels[s].master;
        if self.nodes[master].of.is_some() {
            return;
        }
        for n in (0..self.nodes.len()).filter(|n| *n != master) {
            let wrong = self.nodes[n].of != Some(master) && now - self.nodes[n].since > CONVERT;
            // Nor was it down for as long (sentinelRedisInstanceNoDownFor).
            let wrong = wrong && now - self.sentinels[s].reaches[n] > CONVERT;
            // One that is stuck in a handover is connected to anew, and told to abort it in the same transaction.
            if wrong && self.linked(s, n) && (!self.paused(now, n) || self.nodes[n].handover.is_some()) {
                self.demote(now, n, master);
            }
        }
    }

    /// Whom a majority of the Sentinels names, and at which epoch, in truth.
    pub fn truth(&self, now: u64) -> Option<(usize, u64)> {
        let said: Vec<(usize, u64)> = (0..self.sentinels.len())
            .map(|s| {
                let says = self.says(now, s);
                (says.master, says.epoch)
            })
            .collect();
        said.iter().find(|v| said.iter().filter(|o| o == v).count() > said.len() / 2).copied()
    }
}
