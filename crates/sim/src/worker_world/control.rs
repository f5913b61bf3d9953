//! A scripted control plane: it breaks things, and publishes what the topology machine would.
use super::server::Role;
use super::{FAULTS_END, Kind, SERVICE, World};
use crate::rng::Rng;
use pointsman_core::Now;
use pointsman_core::topology::snapshot::{
    Deposed, Endpoint, Gate, Kept, ServiceView, ShardView, Sign, Snapshot, Term,
};
use std::sync::Arc;
use std::time::Duration;

/// Something that will happen.
#[derive(Clone, Debug)]
enum Job {
    /// Ask the master who it is, and publish the proof.
    Prove,
    /// Publish a proof that began then.
    Proven(Now),
    /// Close gates.
    Hold { reads: bool },
    /// The old master's data go to this node, which becomes the master.
    Promote { to: usize, demote_first: bool },
    /// Publish what this node, which is to be promoted, has of the master's writes.
    Kept { to: usize },
    /// Publish the new grant.
    Grant { to: usize },
    /// The old master learns that it is none.
    Demote { who: usize, kill: bool },
    /// The control plane sees that it has.
    Demoted { who: usize },
    /// A node answers again.
    Up { who: usize },
    /// The lease is renewed, or not any longer.
    Lease { left: u32 },
    /// Break something.
    Fault,
}

pub(super) struct Control {
    pub(super) view: Arc<ShardView>,
    version: u64,
    pub(super) master: usize,
    jobs: Vec<(Now, Job)>,
    /// A switch is under way.
    switching: bool,
    /// What the next master has of the present term's history.
    pub(super) kept_of_last_term: u64,
    histories: u64,
    hold_max: Duration,
    /// A replica may serve reads that are held.
    replica_reads: bool,
}

/// The server at an address.
pub(super) fn server_at(to: &Endpoint) -> usize {
    match to {
        Endpoint::Unix(name) => name.parse().unwrap_or(0),
        Endpoint::Tcp(_) => 0,
    }
}

fn endpoint(server: usize) -> Endpoint {
    Endpoint::Unix(server.to_string().into())
}

impl Control {
    pub(super) fn new(rng: &mut Rng, kind: Kind) -> Control {
        let hold_max = Duration::from_millis([60, 300, 3_000][rng.index(3)]);
        let mut jobs = vec![(Now::from_micros(rng.between(1_000, 30_000)), Job::Grant { to: 0 })];
        if kind == Kind::Faults {
            let first = Now::from_millis(rng.between(1, 400));
            jobs.push((first, Job::Fault));
        }
        Control {
            view: Arc::new(ShardView::unknown(Now::ZERO, hold_max)),
            version: 0,
            master: 0,
            jobs,
            switching: true,
            kept_of_last_term: 0,
            histories: 1,
            hold_max,
            replica_reads: kind == Kind::Faults && rng.chance(40),
        }
    }

    pub(super) fn next_event(&self) -> Option<Now> {
        self.jobs.iter().map(|(at, _)| *at).min()
    }

    pub(super) fn hold_max(&self) -> Duration {
        self.hold_max
    }

    /// Who is to be master.
    pub(super) fn master(&self) -> usize {
        self.master
    }

    /// A history that nobody wrote.
    pub(super) fn next_history(&mut self) -> u64 {
        self.histories += 1;
        self.histories
    }

    fn later(&mut self, at: Now, job: Job) {
        self.jobs.push((at, job));
    }
}

impl World {
    /// Does what is due; whether something was.
    pub(super) fn control_tick(&mut self) -> bool {
        let now = self.now;
        let mut due = Vec::new();
        self.control.jobs.retain(|(at, job)| {
            if *at <= now {
                due.push(job.clone());
            }
            *at > now
        });
        let any = !due.is_empty();
        for job in due {
            self.job(job);
        }
        any
    }

    fn in_ms(&mut self, from: u64, to: u64) -> Now {
        self.now + Duration::from_micros(self.rng.between(from * 1000, to * 1000))
    }

    fn publish(&mut self, change: impl FnOnce(&mut ShardView)) {
        let mut view = (*self.control.view).clone();
        change(&mut view);
        view.hold_max = self.control.hold_max;
        view.reads_from = self.replica_for_reads(&view);
        self.control.view = Arc::new(view);
        self.control.version += 1;
        let shards = [self.control.view.clone()].into();
        let services = [ServiceView { id: SERVICE, shards }].into();
        let snapshot = Arc::new(Snapshot { version: self.control.version, services });
        self.shell.mail_snapshot(snapshot);
    }

    /// In some worlds a replica serves reads while they are held; at times another one.
    fn replica_for_reads(&mut self, view: &ShardView) -> Option<Endpoint> {
        if !self.control.replica_reads || view.reads == Gate::Open || self.healed {
            return None;
        }
        let other = self.other();
        let fit = self.servers[other].role == Role::Replica && Some(endpoint(other)) != view.master;
        match &view.reads_from {
            Some(present) if self.rng.chance(70) => Some(present.clone()),
            _ => fit.then(|| endpoint(other)),
        }
    }

    fn job(&mut self, job: Job) {
        if !matches!(job, Job::Lease { .. }) {
            self.note(|| format!("control: {job:?}"));
        }
        let now = self.now;
        match job {
            Job::Prove => {
                let answer = self.in_ms(0, 8);
                let healthy = self.is_healthy(self.control.master);
                if healthy && !self.control.switching {
                    self.control.later(answer, Job::Proven(now));
                } else if !self.control.switching {
                    let again = self.in_ms(5, 30);
                    self.control.later(again, Job::Prove);
                }
            }
            Job::Proven(at) => {
                if !self.control.switching && self.is_healthy(self.control.master) {
                    self.publish(|v| {
                        v.proven_at = v.proven_at.max(at);
                        (v.writes, v.reads) = (Gate::Open, Gate::Open);
                        v.writes_until = None;
                    });
                }
            }
            Job::Hold { reads } => {
                let hold = Gate::Hold { since: now, until: now + self.control.hold_max };
                self.publish(|v| {
                    v.writes = hold;
                    if reads {
                        v.reads = hold;
                    }
                });
            }
            Job::Promote { to, demote_first } => self.promote(to, demote_first),
            Job::Kept { to } => self.tell_kept(to),
            Job::Grant { to } => self.grant(to),
            Job::Demote { who, kill } => {
                if who != self.control.master {
                    let seen = self.in_ms(0, 60);
                    self.control.later(seen, Job::Demoted { who });
                    self.servers[who].become_role(now, Role::Replica);
                    self.unpause(who);
                    if kill {
                        self.kill_connections(who);
                    }
                }
            }
            Job::Demoted { who } => {
                if self.control.view.deposed.as_ref().is_some_and(|d| d.at == endpoint(who)) {
                    let answers = self.rng.chance(50);
                    self.publish(|v| {
                        v.deposed =
                            v.deposed.take().filter(|_| answers).map(|d| Deposed { to_be_told: false, ..d });
                    });
                }
            }
            Job::Up { who } => {
                self.refusing[who] = false;
                if !self.healed && self.rng.chance(40) {
                    self.servers[who].loading_until = now + Duration::from_millis(self.rng.between(1, 60));
                }
            }
            Job::Lease { left } => self.lease(left),
            Job::Fault => self.fault(),
        }
    }

    fn is_healthy(&self, who: usize) -> bool {
        self.servers[who].role == Role::Master
            && !self.refusing[who]
            && self.now >= self.servers[who].stopped_until
            && self.now >= self.servers[who].loading_until
    }

    fn promote(&mut self, to: usize, demote_first: bool) {
        let from = self.control.master;
        let order = if demote_first { "switches, demoted first" } else { "switches, demoted later" };
        self.report.count(order, 1);
        if demote_first {
            let kill = self.rng.chance(50);
            self.servers[from].become_role(self.now, Role::Replica);
            self.unpause(from);
            if kill {
                self.kill_connections(from);
            }
        }
        if to != from {
            self.take_over(from, to);
        }
        self.servers[to].loading_until = Now::ZERO;
        self.servers[to].role = Role::Master;
        self.control.master = to;
        if !demote_first && to != from {
            let at = self.in_ms(0, 200);
            let kill = self.rng.chance(50);
            self.control.later(at, Job::Demote { who: from, kill });
        }
        let at = self.in_ms(0, 40);
        self.control.later(at, Job::Grant { to });
    }

    /// Who has paused a node's writes ends that when it is demoted, if he lives.
    fn unpause(&mut self, who: usize) {
        if self.rng.chance(80) {
            self.servers[who].paused_until = Now::ZERO;
        }
    }

    fn tell_kept(&mut self, to: usize) {
        let master = self.control.master;
        let has = match to == master {
            _ if !self.control.switching => None,
            true => Some(self.control.kept_of_last_term),
            false => self.servers[to].replication.of(&self.servers[master].replication),
        };
        if let Some(offset) = has {
            self.publish(|v| v.kept = Some(Kept { term: v.term, offset }));
        }
    }

    fn grant(&mut self, to: usize) {
        let now = self.now;
        self.control.switching = false;
        if !self.healed && self.rng.chance(15) {
            // A grant under a lease, which is renewed for a while.
            self.control.later(now, Job::Lease { left: 5 });
        }
        let kept = self.rng.chance(90).then_some(self.control.kept_of_last_term);
        // What comes after the next master is not known yet.
        self.control.kept_of_last_term = self.servers[to].replication.offset;
        let still_master = |at: &Endpoint| self.servers[server_at(at)].role == Role::Master;
        let former = self.control.view.master.clone().filter(|at| *at != endpoint(to));
        let deposed = former.filter(|_| self.rng.chance(80));
        let deposed = deposed.map(|at| Deposed { to_be_told: still_master(&at), at });
        self.publish(|v| {
            v.deposed = deposed;
            v.kept = kept.map(|offset| Kept { term: v.term, offset });
            v.term = Term(v.term.0 + 1);
            v.master = Some(endpoint(to));
            v.proven_at = now;
            (v.writes, v.reads) = (Gate::Open, Gate::Open);
            v.writes_until = None;
            v.why = "granted".into();
        });
    }

    fn lease(&mut self, left: u32) {
        if self.control.switching || self.healed {
            return;
        }
        let until = self.in_ms(2, 30);
        self.report.count("leases", 1);
        self.publish(|v| v.writes_until = Some(until));
        if left > 0 {
            let next = self.in_ms(1, 40);
            self.control.later(next, Job::Lease { left: left - 1 });
        } else {
            let at = self.in_ms(20, 80);
            self.control.later(at, Job::Prove);
        }
    }

    fn kill_connections(&mut self, server: usize) {
        for conn in self.servers[server].conns() {
            let gently = self.rng.chance(50);
            self.servers[server].gone(conn);
            self.net.peer_close(conn, gently);
        }
    }

    fn other(&mut self) -> usize {
        let n = self.servers.len();
        (self.control.master + 1 + self.rng.index(n - 1)) % n
    }

    fn begin_switch(&mut self) {
        self.control.switching = true;
        let to = self.other();
        // Somebody else may be who switches over: he pauses the writes, and that is seen a moment later.
        let paused = self.rng.chance(40);
        let seen = if paused { self.in_ms(0, 60) } else { self.now };
        if paused {
            self.report.count("masters whose writes are paused", 1);
            self.servers[self.control.master].paused_until = self.in_ms(60, 500);
        }
        if self.rng.chance(70) {
            let reads = self.rng.chance(80);
            self.control.later(seen, Job::Hold { reads });
        }
        if self.rng.chance(50) {
            // It is slow just now, and answers what is under way when another one may have been promoted.
            let from = self.control.master;
            let until = self.in_ms(1, 150);
            self.servers[from].stopped_until = self.servers[from].stopped_until.max(until);
            if self.rng.chance(50) {
                self.stall_a_replica(to);
            }
        }
        for _ in 0..self.rng.below(4) {
            let at = self.in_ms(0, 120);
            self.control.later(at, Job::Kept { to });
        }
        let at = self.in_ms(if paused { 60 } else { 0 }, 120);
        let demote_first = self.rng.chance(50);
        self.control.later(at, Job::Promote { to, demote_first });
    }

    fn fault(&mut self) {
        let next = self.in_ms(5, 300);
        if next < FAULTS_END && !self.healed {
            self.control.later(next, Job::Fault);
        }
        if self.healed {
            return;
        }
        let (now, master) = (self.now, self.control.master);
        let which = self.rng.below(18);
        self.note(|| format!("fault {which}"));
        let free = !self.control.switching;
        match which {
            0 | 1 if free => self.begin_switch(),
            2 if free => {
                self.report.count("crashes with a switch", 1);
                // The master dies; another one is promoted, and it comes back as a replica.
                self.crash(master);
                self.begin_switch();
            }
            3 if free => {
                self.report.count("restarts of the master", 1);
                // It restarts, and stays the master.
                self.crash(master);
                let at = self.in_ms(1, 300);
                self.control.later(at, Job::Up { who: master });
            }
            4 if free => {
                self.report.count("holds without a switch", 1);
                let (reads, at) = (self.rng.chance(70), self.in_ms(1, 500));
                self.job(Job::Hold { reads });
                self.control.later(at, Job::Prove);
            }
            5 if free => {
                self.report.count("demotions that nobody knows of", 1);
                // It is demoted before anybody knows, with or without its data.
                let role = if self.rng.chance(70) { Role::Replica } else { Role::Cut };
                self.servers[master].become_role(now, role);
                self.control.switching = true;
                let (at, to) = (self.in_ms(5, 150), self.other());
                self.control.later(at, Job::Promote { to, demote_first: true });
            }
            6 => {
                self.report.count("refusals", 1);
                let writes_only = self.rng.chance(50);
                self.publish(|v| {
                    v.writes = Gate::Refuse;
                    if !writes_only {
                        v.reads = Gate::Refuse;
                    }
                    v.why = "the hold ran out".into();
                });
                let at = self.in_ms(1, 200);
                self.control.later(at, Job::Prove);
            }
            7 if free => {
                self.report.count("no master", 1);
                let until = now + Duration::from_millis(30);
                self.control.switching = true;
                let answers = self.rng.chance(50);
                self.publish(|v| {
                    let former = v.master.take().filter(|_| answers);
                    v.deposed = former.map(|at| Deposed { at, to_be_told: false });
                    v.writes = Gate::Hold { since: now, until };
                    v.reads = v.writes;
                });
                let at = self.in_ms(1, 100);
                self.control.later(at, Job::Grant { to: master });
            }
            8 => self.control.later(now, Job::Lease { left: 3 }),
            9 => {
                self.report.count("masters that stop", 1);
                self.servers[master].stopped_until = now + Duration::from_millis(self.rng.between(1, 250));
            }
            11 => {
                self.report.count("masters that cannot be reached", 1);
                // The master is well, but the worker cannot reach it.
                self.unreachable_until = now + Duration::from_millis(self.rng.between(1, 800));
                for conn in self.servers[master].conns() {
                    self.servers[master].gone(conn);
                    self.net.peer_close(conn, false);
                }
            }
            16 | 17 => {
                let who = self.other();
                self.stall_a_replica(who);
            }
            10 => {
                self.report.count("masters that load", 1);
                self.servers[master].loading_until = now + Duration::from_millis(self.rng.between(1, 60));
            }
            _ => self.break_connection(),
        }
    }

    fn crash(&mut self, who: usize) {
        self.servers[who].knows_script = false;
        self.kill_connections(who);
        self.refusing[who] = true;
        let at = self.in_ms(100, 600);
        self.control.later(at, Job::Up { who });
    }

    fn break_connection(&mut self) {
        let links = self.net.to_servers();
        if links.is_empty() {
            return;
        }
        let (link, server) = links[self.rng.index(links.len())];
        match self.rng.below(4) {
            0 => {
                self.report.count("connections that break", 1);
                self.note(|| format!("connection {link} breaks"));
                self.servers[server].gone(link);
                self.net.cut(link);
            }
            1 => {
                let until = self.in_ms(1, 300);
                self.report.count("connections that stall", 1);
                self.note(|| format!("connection {link} stalls"));
                self.net.stall(link, until);
            }
            // What is passed on uncounted, garbage included, proves nothing.
            2 if !self.check.relays(link) => {
                let garbage: &[u8] =
                    [&b"?x\r\n"[..], b"\r\n", b"$-5\r\n", b"*1\r\n*x\r\n", b"$5\r\nab"][self.rng.index(5)];
                self.report.count("connections with garbage", 1);
                self.note(|| format!("garbage on connection {link}"));
                self.net.peer_write(link, garbage);
                self.server_drops_later(server, link);
            }
            _ => self.servers[server].monitored(b"1.0 [0 model] \"ping\""),
        }
    }

    /// Nothing that a server says after garbage can be believed: it is closed soon.
    fn server_drops_later(&mut self, server: usize, link: usize) {
        self.servers[server].gone(link);
        self.net.peer_close(link, true);
    }

    /// The worker saw a sign: the master is proven again, or another one is found.
    pub(super) fn signed(&mut self, _sign: &Sign) {
        let at = self.in_ms(0, 10);
        self.control.later(at, Job::Prove);
    }

    /// What is broken is repaired, and published.
    pub(super) fn control_heal(&mut self) {
        let keep = |job: &Job| matches!(job, Job::Promote { .. } | Job::Grant { .. } | Job::Demote { .. });
        self.control.jobs.retain(|(_, job)| keep(job));
        let to = self.control.master;
        if !self.control.jobs.iter().any(|(_, j)| matches!(j, Job::Promote { .. } | Job::Grant { .. })) {
            self.servers[to].role = Role::Master;
            self.control.switching = false;
            let at = self.now + Duration::from_millis(1);
            self.control.later(at, Job::Prove);
        }
        for (i, s) in self.servers.iter_mut().enumerate() {
            if i != to && s.role == Role::Cut {
                s.role = Role::Replica;
            }
        }
        for (at, _) in &mut self.control.jobs {
            *at = (*at).min(self.now + Duration::from_millis(200));
        }
    }
}
