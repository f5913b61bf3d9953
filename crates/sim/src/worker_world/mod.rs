//! The data plane under a virtual clock: the real [`Worker`], driven as the event loop drives it, among model clients,
//! model servers, a network that cuts, stalls and breaks, and a control plane that switches masters. All from a seed.
//!
//! ```text
//!   script ─▶ client ⇄ net ⇄ shell ⇄ Worker ⇄ shell ⇄ net ⇄ server ─▶ log
//!                                      ▲                           │
//!                     control ─ snapshots, answers to signs     check: what was sent, executed and answered
//! ```
//! What is checked carries the number of the invariant in product.md: (2) nothing goes to a node of an older term, or
//! through a closed gate, or after the lease; (4) every client gets its own replies, in order, to the byte; (5) a
//! session's unanswered commands are on one connection; (6) nothing is executed twice, or out of its session's order,
//! or after the client was told that it was not; (7) each command ran as its client's user, database, protocol and
//! name; (8) what is kept is bounded, nothing is forgotten, nothing spins, everything is answered in the end.
mod check;
mod client;
mod control;
mod migrate;
mod net;
mod replication;
mod script;
mod server;
mod shell;
mod users;

use crate::resp;
use crate::rng::Rng;
use check::Check;
use client::{Client, Manner, Phase};
use control::Control;
use net::{Net, Peer};
use pointsman_core::Now;
use pointsman_core::policy::{Credential, Durable, Limits, Policy, Retry};
use pointsman_core::topology::snapshot::ServiceId;
use pointsman_core::worker::Worker;
use script::{Style, script};
use server::{Role, Server};
use shell::Shell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The service.
const SERVICE: ServiceId = ServiceId(0);
/// Everything that goes wrong does so before this.
const FAULTS_END: Now = Now::from_millis(2_500);
/// After the last fault a client is answered within this, however long its line is.
const PATIENCE: Duration = Duration::from_secs(20);
/// So long after the last fault everything is as it should be.
const RECOVERED_AFTER: Duration = Duration::from_millis(1_500);
/// In so many steps a client gets something to read, or leaves, unless something never ends.
const STEPS_MAX: u64 = 50_000;

/// What is simulated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing fails, and nobody meets: what each client hears is what a server of its own would say.
    Calm,
    /// Everything may fail.
    Faults,
}

/// What happened, summed up: a run that meets nothing proves nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// What was counted, by name.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Adds another run's.
    pub fn add(&mut self, other: &Report) {
        for (name, n) in &other.counts {
            *self.counts.entry(name).or_default() += n;
        }
    }

    fn count(&mut self, name: &'static str, n: u64) {
        *self.counts.entry(name).or_default() += n;
    }
}

/// A broken invariant.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What is wrong.
    pub what: String,
    /// What happened before, if it was asked for.
    pub trace: Vec<String>,
}

struct World {
    kind: Kind,
    rng: Rng,
    now: Now,
    policy: Policy,
    net: Net,
    servers: Vec<Server>,
    /// Servers that refuse connections.
    refusing: Vec<bool>,
    /// The worker can connect to nobody until then.
    unreachable_until: Now,
    clients: Vec<Client>,
    shell: Shell,
    control: Control,
    check: Check,
    report: Report,
    trace: Option<Vec<String>>,
    healed: bool,
    quiet: u32,
    spins: u32,
    /// Steps since a client last said, heard or did something.
    steps: u64,
}

/// Runs the world of a seed.
pub fn run(seed: u64, kind: Kind, traced: bool) -> Result<Report, Broken> {
    let mut world = World::new(seed, kind, traced);
    match world.run() {
        Ok(()) => Ok(world.report),
        Err(what) => Err(Broken {
            what: format!("at {:?}: {what}", world.now),
            trace: world.trace.unwrap_or_default(),
        }),
    }
}

fn random_limits(rng: &mut Rng) -> Limits {
    let mut limits = Limits::default();
    if rng.chance(35) {
        return limits;
    }
    if rng.chance(15) {
        // So little that whoever waits is soon not read.
        limits.inline_max = 64;
        limits.client_input_max = rng.between(150, 600) as usize;
        limits.stream_from = limits.client_input_max;
        limits.in_flight_max = rng.between(1, 5) as u32;
        return limits;
    }
    let mut less = |of: &mut usize, from: u64, to: u64| {
        if rng.chance(60) {
            *of = rng.between(from, to) as usize;
        }
    };
    less(&mut limits.inline_max, 64, 300);
    less(&mut limits.stream_from, 150, 3000);
    less(&mut limits.client_input_max, 150, 4000);
    less(&mut limits.ring_max, 150, 6000);
    less(&mut limits.client_output_soft, 50, 3000);
    less(&mut limits.subs_max, 0, 600);
    less(&mut limits.in_place_from, 0, 300);
    // Whoever configures takes care of these (`limits` in the configuration).
    limits.stream_from = limits.stream_from.min(limits.client_input_max).min(limits.ring_max);
    limits.inline_max = limits.inline_max.min(limits.client_input_max);
    if rng.chance(10) {
        limits.client_output_hard = limits.client_output_soft + rng.between(100, 3000) as usize;
    }
    if rng.chance(20) {
        limits.subscriber_output_hard = rng.between(100, 3000) as usize;
    }
    if rng.chance(20) {
        limits.subscriber_output_soft = rng.between(50, 1000) as usize;
        limits.subscriber_output_time = Duration::from_millis(rng.between(1, 2000));
    }
    if rng.chance(60) {
        limits.in_flight_max = rng.between(1, 20) as u32;
    }
    limits
}

fn random_policy(rng: &mut Rng, kind: Kind) -> Policy {
    let mut policy = Policy::new(SERVICE, "model");
    policy.limits = random_limits(rng);
    policy.lanes_per_node = rng.between(1, 3) as u16;
    policy.upstream_idle = Duration::from_millis(rng.between(200, 3000));
    policy.connect_timeout = Duration::from_millis(rng.between(30, 500));
    policy.retry = [Retry::Reads, Retry::Reads, Retry::None][rng.index(3)];
    if kind == Kind::Calm {
        // Nobody is closed for what it does not read.
        let Limits { client_output_hard, subscriber_output_hard, subscriber_output_soft, .. } =
            Limits::default();
        let limits = &mut policy.limits;
        limits.client_output_hard = client_output_hard;
        limits.subscriber_output_hard = subscriber_output_hard;
        limits.subscriber_output_soft = subscriber_output_soft;
        return policy;
    }
    policy.pass_readonly = rng.chance(10);
    if rng.chance(30) {
        policy.pinned_max = rng.between(1, 6) as u32;
    }
    if rng.chance(15) {
        policy.upstream_user =
            Some(Credential { user: Some(b"alice"[..].into()), secret: b"alice-secret"[..].into() });
        policy.users = users::users().filter(|_| rng.chance(50));
    }
    policy
}

fn random_manner(rng: &mut Rng, kind: Kind) -> Manner {
    let calm = kind == Kind::Calm;
    Manner {
        starts: Now::from_micros(rng.below(if calm { 2_000 } else { 1_500_000 })),
        window: [1, 2, 8, 40, 400][rng.index(5)],
        reads: [7, 50, 1000, 100_000][rng.index(4)],
        attention: [5, 50, 100][rng.index(3)],
        leaves_after: (!calm && rng.chance(15)).then(|| rng.between(1, 30) as u32),
        half_closes: !calm && rng.chance(10),
        lingers_to: Now::from_millis(if calm { 200 } else { rng.between(500, 6_000) }),
    }
}

impl World {
    fn new(seed: u64, kind: Kind, traced: bool) -> World {
        let mut rng = Rng::new(seed);
        let mut policy = random_policy(&mut rng, kind);
        let nodes = rng.between(2, 3) as usize;
        if rng.chance(40) {
            // Whoever is promoted has it.
            let timeout = Duration::from_millis(rng.between(5, 250));
            policy.durable = Durable { replicas: nodes as u32 - 1, timeout };
        }
        let policy = policy;
        let locked = rng.chance(25);
        let (upstream, own) = (policy.upstream_user.is_some(), policy.users.is_some());
        let servers: Vec<Server> = (0..nodes)
            .map(|i| Server::new(i, if i == 0 { Role::Master } else { Role::Replica }, locked))
            .collect();
        let calm = kind == Kind::Calm;
        let style = Style {
            private: calm,
            locked: own || locked && !upstream,
            large: policy.limits.stream_from.min(1500),
            huge: rng.chance(10) && !locked && !own && policy.limits.client_output_hard > 1 << 20,
            phrases: rng.between(1, 12),
        };
        let user = if own || locked && !upstream {
            None
        } else if upstream {
            Some("alice")
        } else {
            Some("default")
        };
        let clients = (0..rng.between(1, if calm { 5 } else { 12 }) as u32)
            .map(|id| {
                let words = script(&mut rng, id, &style);
                let mut manner = random_manner(&mut rng, kind);
                if style.huge {
                    manner.reads = manner.reads.max(5_000);
                }
                let mut c = Client::new(id, manner, words, user, !calm);
                c.own_users = own;
                c.huge = style.huge;
                c.durable = policy.durable.replicas > 0 && rng.chance(60);
                c.slow = c.huge || c.manner.attention < 100 || c.manner.reads < 1000;
                if !policy.pass_readonly {
                    c.shown_from = policy.limits.stream_from.min(policy.limits.client_input_max - 1);
                } else {
                    c.shown_from = 0;
                }
                c
            })
            .collect();
        let clients: Vec<Client> = clients;
        let durable = clients.iter().filter(|c| c.durable).map(|c| c.id).collect();
        let mut worker = Worker::new(1, 1);
        worker.configure(Now::ZERO, &[Arc::new(policy.clone())]);
        let refusing = vec![false; servers.len()];
        World {
            kind,
            now: Now::from_millis(1),
            control: Control::new(&mut rng, kind),
            shell: Shell::new(worker, [64, 500, 4096, 128 << 10][rng.index(4)]),
            check: Check::new(durable),
            net: Net::default(),
            servers,
            refusing,
            unreachable_until: Now::ZERO,
            clients,
            report: Report::default(),
            trace: traced.then(Vec::new),
            healed: kind == Kind::Calm,
            quiet: 0,
            spins: 0,
            steps: 0,
            policy,
            rng,
        }
    }

    /// Whether the client at this end asks for durable writes.
    fn asks_durable(&self, link: usize) -> bool {
        self.clients.iter().any(|c| c.link == link && c.durable)
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:?} {}", self.now, what()));
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let policy = self.policy.clone();
        self.note(|| format!("{policy:?}"));
        loop {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(format!("nobody hears anything for {} steps: {}", self.steps, self.stuck()));
            }
            self.step()?;
            if self.clients.iter().all(|c| c.phase == Phase::Over) && self.healed {
                break;
            }
        }
        self.wind_down()?;
        self.final_checks()
    }

    /// Nobody is there any longer: what was opened is closed in time.
    fn wind_down(&mut self) -> Result<(), String> {
        let until =
            self.now + self.policy.upstream_idle + self.policy.connect_timeout + Duration::from_secs(5);
        while self.now < until {
            self.step()?;
        }
        let audit = self.shell.worker.audit()?;
        if self.shell.worker.upstreams() != 0 || self.shell.worker.clients() != 0 || audit.kept != 0 {
            let (ups, clients) = (self.shell.worker.upstreams(), self.shell.worker.clients());
            return Err(format!("(8) left over: {ups} upstream connections, {clients} clients, {audit:?}"));
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        if !self.healed && self.now >= FAULTS_END {
            self.heal();
        }
        let late = self.rng.chance(30);
        let mut progress = false;
        if !late {
            progress |= self.control_tick();
        }
        progress |= self.servers_tick();
        progress |= self.replicate();
        if self.clients_tick()? {
            self.steps = 0;
            progress = true;
        }
        let now = self.now;
        progress |= self.net.tick(&mut self.rng, now);
        progress |= self.turn(late)?;
        self.check_audit()?;
        self.check_waits()?;
        self.advance(progress)
    }

    /// (8) Also while things fail no client waits much longer than a hold may last.
    fn check_waits(&self) -> Result<(), String> {
        // What a server that was stopped, a connection that stalled or was never made takes, and what is asked again.
        let most = self.control.hold_max() * 2 + Duration::from_millis(2_000);
        for c in self.clients.iter().filter(|c| c.phase == Phase::Open && c.owed() > 0) {
            if !c.slow && self.now > c.since + most {
                return Err(format!("(8) client {} waits since {:?}: {}", c.id, c.since, self.stuck()));
            }
        }
        Ok(())
    }

    fn check_audit(&mut self) -> Result<(), String> {
        let audit = self.shell.worker.audit()?;
        let l = &self.policy.limits;
        self.shell.check_unread(&audit, l.client_output_soft)?;
        // What makes a queue full is taken as a whole: a read, a request; and a header is passed on as a whole.
        let input = l.client_input_max.max(l.inline_max + 1) + self.shell.read_max();
        // What Pointsman itself asks on a connection: names, the mark of a WAIT.
        let own = 100;
        let bounds = [
            ("input of a client", audit.input_max, input),
            ("ring of a connection, before the last request", audit.ring_max, l.ring_max + own),
            (
                "ring of a connection that a request streams into",
                audit.stream_max,
                l.ring_max + l.inline_max + 2,
            ),
            ("a request that is kept as a whole", audit.request_max, input + 4 * l.inline_max),
            ("replies to a client", audit.out_max, l.client_output_hard),
            ("commands in flight", audit.owed_max, l.in_flight_max as usize),
            ("pinned connections", audit.pinned, self.policy.pinned_max as usize),
        ];
        for (what, is, most) in bounds {
            if is > most {
                return Err(format!("(8) {what}: {is}, the limit is {most}"));
            }
        }
        self.report
            .count("turns with bytes withheld", u64::from(audit.unsent > 0 && self.shell.all_writable()));
        self.report
            .count("turns with a full ring", u64::from(audit.ring_max.max(audit.stream_max) >= l.ring_max));
        self.report.count("turns with all in flight", u64::from(audit.owed_max == l.in_flight_max as usize));
        self.report
            .count("turns with all pinned", u64::from(audit.pinned == self.policy.pinned_max as usize));
        Ok(())
    }

    /// Time goes on: a little while things happen, to the next thing that will when nothing does.
    fn advance(&mut self, progress: bool) -> Result<(), String> {
        let patience = self.shell.patience(self.now);
        self.spins = if progress || patience != Some(Duration::ZERO) { 0 } else { self.spins + 1 };
        if self.spins > 100 {
            return Err(format!("(8) the worker spins: {}", self.stuck()));
        }
        self.quiet = if progress { 0 } else { self.quiet + 1 };
        if self.quiet < 4 || self.net.peers_have_mail() {
            self.now = self.now + Duration::from_micros(self.rng.below(400));
            return Ok(());
        }
        let worker = self.shell.worker.next_timeout(self.now);
        let servers = self.servers.iter().filter_map(|s| s.next_event(self.now));
        let starts = self.clients.iter().filter(|c| c.phase == Phase::Before).map(|c| c.manner.starts);
        let lingering = |c: &&Client| c.phase == Phase::Open && c.lingers(self.now);
        let leaves = self.clients.iter().filter(lingering).map(|c| c.manner.lingers_to);
        let heal = (!self.healed).then_some(FAULTS_END);
        let rest =
            [worker, self.net.next_event(self.now), self.control.next_event(), self.shell.next_event(), heal];
        let next = rest.into_iter().flatten().chain(servers).chain(starts).chain(leaves).min();
        self.now = next.unwrap_or(Now::NEVER).max(self.now).min(self.now + Duration::from_millis(100));
        if !self.healed {
            return Ok(());
        }
        let waits = |c: &&Client| c.phase == Phase::Open && c.owed() > 0;
        let since = self.clients.iter().filter(waits).map(|c| c.since).min();
        let from = since.map(|t| if self.kind == Kind::Faults { t.max(FAULTS_END) } else { t });
        if from.is_some_and(|t| self.now > t + PATIENCE) {
            return Err(format!("(8) a client is not answered: {}", self.stuck()));
        }
        Ok(())
    }

    fn stuck(&self) -> String {
        let mut out = String::new();
        for c in self.clients.iter().filter(|c| c.phase == Phase::Open) {
            let first = c.first_owed().map(|c| (c.seq, &c.what));
            let sent = c.next;
            out += &format!(
                "\n  client {} waits for {first:?}, {} in all; {sent} of {} said",
                c.id,
                c.owed(),
                c.script.len()
            );
        }
        out += &format!("\n  view {:?}\n  worker {:?}", self.control.view, self.shell.worker.audit());
        out
    }

    /// All faults end.
    fn heal(&mut self) {
        self.note(|| "everything heals".into());
        self.healed = true;
        self.net.heal();
        for s in &mut self.servers {
            s.stopped_until = Now::ZERO;
            s.paused_until = Now::ZERO;
            s.loading_until = Now::ZERO;
        }
        self.refusing.fill(false);
        self.unreachable_until = Now::ZERO;
        for c in &mut self.clients {
            c.manner.reads = 1 << 20;
            c.manner.attention = 100;
        }
        self.control_heal();
    }

    fn servers_tick(&mut self) -> bool {
        let mut progress = false;
        for s in 0..self.servers.len() {
            if self.now < self.servers[s].stopped_until {
                continue;
            }
            progress |= self.servers[s].tick(self.now);
            let mut conns = self.servers[s].conns();
            if !conns.is_empty() {
                let turn = self.rng.index(conns.len());
                conns.rotate_left(turn);
            }
            for conn in conns {
                if self.healed || self.rng.chance(60) {
                    progress |= self.server_conn(s, conn);
                }
            }
            for conn in self.servers[s].conns() {
                progress |= self.server_flush(s, conn);
            }
        }
        progress
    }

    fn server_conn(&mut self, s: usize, conn: usize) -> bool {
        let most = if self.healed { 1 << 20 } else { self.rng.between(1, 3000) as usize };
        let blocked = self.servers[s].is_blocked(conn);
        let (bytes, end) = self.net.peer_read(conn, most);
        let mut progress = !bytes.is_empty();
        if end && bytes.is_empty() {
            self.server_drops(s, conn, true);
            return true;
        }
        self.servers[s].feed(self.now, conn, &bytes, 0);
        let mut left = if blocked { 0 } else { self.rng.between(1, 30) };
        while left > 0 && self.servers[s].feed(self.now, conn, b"", 1) > 0 {
            left -= 1;
            progress = true;
            self.check.consumed(conn);
            self.server_flush(s, conn);
        }
        progress
    }

    fn server_flush(&mut self, s: usize, conn: usize) -> bool {
        let (out, ending) = self.servers[s].output(conn);
        if !out.is_empty() {
            self.net.peer_write(conn, &out);
        }
        if !self.servers[s].is_blocked(conn) {
            self.check.answered(conn, self.net.heard_from(conn).0);
        }
        for state in std::mem::take(&mut self.servers[s].state_commands) {
            self.check.state_command(state.0, &state.1);
        }
        for executed in std::mem::take(&mut self.servers[s].log) {
            self.note(|| format!("server {s} executes {executed:?}", executed = brief(&executed)));
            self.check.executed(executed);
        }
        if ending {
            self.server_drops(s, conn, true);
        }
        !out.is_empty()
    }

    fn server_drops(&mut self, s: usize, conn: usize, gently: bool) {
        self.servers[s].gone(conn);
        self.net.peer_close(conn, gently);
    }

    fn clients_tick(&mut self) -> Result<bool, String> {
        let mut progress = false;
        for i in 0..self.clients.len() {
            progress |= match self.clients[i].phase {
                Phase::Over => false,
                Phase::Before => self.client_begins(i),
                Phase::Open => self.client_acts(i)?,
            };
        }
        Ok(progress)
    }

    fn client_begins(&mut self, i: usize) -> bool {
        if self.now < self.clients[i].manner.starts {
            return false;
        }
        let room = [30, 300, 100_000][self.rng.index(3)];
        let link = self.net.open(Peer::Client(i as u32), room);
        self.clients[i].link = link;
        self.clients[i].phase = Phase::Open;
        self.note(|| format!("client {i} connects by {link}"));
        self.shell.mail_accepted(link);
        true
    }

    fn client_acts(&mut self, i: usize) -> Result<bool, String> {
        let now = self.now;
        let c = &mut self.clients[i];
        let link = c.link;
        let mut progress = c.speak(now, &mut self.rng);
        let room = 2000usize.saturating_sub(self.net.peer_unread(link));
        let n = if self.rng.chance(50) { room } else { self.rng.below(60) as usize }
            .min(room)
            .min(c.outbox.len());
        if n > 0 {
            let bytes: Vec<u8> = c.outbox.drain(..n).collect();
            self.net.peer_write(link, &bytes);
            progress = true;
        }
        if self.rng.chance(c.manner.attention) {
            let (bytes, end) = self.net.peer_read(link, c.manner.reads);
            progress |= !bytes.is_empty();
            c.hear(now, &bytes)?;
            for settled in std::mem::take(&mut c.settled) {
                self.check.settled(settled)?;
            }
            if end && bytes.is_empty() {
                return self.client_closed(i).map(|()| true);
            }
        }
        let c = &mut self.clients[i];
        let stuck = c.is_stuck(now);
        if stuck && self.rng.chance(50) {
            c.half_closes();
            self.net.peer_half_close(link);
            self.note(|| format!("client {i} has lost patience, and will send no more"));
            self.report.count("clients stuck that half-close", 1);
            return Ok(true);
        }
        if c.lingers(now) && !c.walks_out() {
            return Ok(progress);
        }
        if c.walks_out() || c.is_through() || stuck {
            self.check_subscriber(i)?;
            let c = &mut self.clients[i];
            let gently = c.is_through() || self.rng.chance(50);
            let why = if stuck { "clients stuck that leave" } else { "clients that leave in the middle" };
            self.report.count(why, u64::from(!c.is_through()));
            c.phase = Phase::Over;
            self.net.peer_close(link, gently);
            self.note(|| format!("client {i} leaves, gently: {gently}"));
            return Ok(true);
        }
        if c.half_closes_now() {
            self.net.peer_half_close(link);
            self.report.count("clients that half-close", 1);
            self.note(|| format!("client {i} will send no more"));
        }
        Ok(progress)
    }

    /// (7) A client that believes that it is subscribed is so, at the latest when all has long been well.
    fn check_subscriber(&mut self, i: usize) -> Result<(), String> {
        let c = &self.clients[i];
        let recovered = FAULTS_END + RECOVERED_AFTER;
        if c.subs.is_empty() || !c.is_through() || self.now < recovered.max(c.since + RECOVERED_AFTER) {
            return Ok(());
        }
        if !self.servers[self.control.master].has_subscriber(&c.subs) {
            return Err(format!("(7) client {i} believes that it is subscribed to {:?}", c.subs));
        }
        self.report.count("subscribers that stay", 1);
        Ok(())
    }

    fn client_closed(&mut self, i: usize) -> Result<(), String> {
        let c = &mut self.clients[i];
        c.phase = Phase::Over;
        let link = c.link;
        let allowed = c.closed();
        self.net.peer_close(link, true);
        self.note(|| format!("client {i} was closed"));
        let overrun: u64 = self.shell.worker.counters().iter().map(|(_, c)| c.clients_overrun).sum();
        match allowed {
            Err(_) if self.check.overruns < overrun => self.check.overruns += 1,
            other => other?,
        }
        self.report.count("clients closed by the proxy", 1);
        Ok(())
    }

    fn final_checks(&mut self) -> Result<(), String> {
        for c in &self.clients {
            for tx in &c.transactions {
                self.check.transaction(tx)?;
            }
            self.report.count("commands answered", c.heard.len() as u64);
            self.report.count("messages for patterns", c.by_pattern);
            self.report.count("clients that turn replies off", u64::from(c.counts_none()));
            self.report.count(
                "clients that turn them on again",
                u64::from(c.counts_none() && !c.uncounted.is_empty()),
            );
        }
        self.check.finish(&mut self.report)?;
        if self.kind == Kind::Calm {
            self.compare_with_direct()?;
            let signs: u64 = self.shell.worker.counters().iter().map(|(_, c)| c.signs).sum();
            if signs > 0 {
                return Err("a sign was seen where nothing failed".into());
            }
        }
        for (_, c) in self.shell.worker.counters() {
            self.report.count("resent", c.resent);
            self.report.count("uncertain", c.uncertain);
            self.report.count("masterdown", c.masterdown);
            self.report.count("held", c.held);
            self.report.count("withheld at a sign", c.withheld);
            self.report.count("durable", c.durable);
            self.report.count("not durable", c.not_durable);
            self.report.count("waits", c.waits);
            self.report.count("signs", c.signs);
            self.report.count("overrun", c.clients_overrun);
            self.report.count("cut", c.clients_cut);
            self.report.count("subscribers interrupted", c.subscribers_interrupted);
            self.report.count("scripts shown again", c.scripts_reloaded);
            self.report.count("reads by replicas", c.replica_reads);
            self.report.count("refused", c.refused);
            self.report.count("malformed", c.malformed);
            self.report.count("denied before they authenticate", c.unauthenticated);
        }
        self.report.count("terms", self.control.view.term.0);
        Ok(())
    }

    /// What each client heard is what it hears from a server of its own.
    fn compare_with_direct(&self) -> Result<(), String> {
        for c in &self.clients {
            let mut server = Server::new(0, Role::Master, self.servers[0].locked);
            let mut alone = Client::new(c.id, c.manner.clone(), c.script.clone(), c.first_user(), false);
            alone.manner.window = 1;
            server.accept(0);
            let mut now = self.now;
            let mut rng = Rng::new(1);
            while alone.next < alone.script.len() || alone.owed() > 0 {
                let from = alone.next;
                alone.speak(now, &mut rng);
                if alone.first_owed().is_some_and(|c| is_odd(&c.what)) {
                    break;
                }
                alone.outbox.clear();
                for cmd in &alone.script[from..alone.next] {
                    server.feed(now, 0, &direct(&cmd.bytes), usize::MAX);
                }
                now = now + Duration::from_millis(50);
                server.tick(now);
                let (out, _) = server.output(0);
                alone.hear(now, &out)?;
            }
            // Unless it stopped before.
            if alone.next == alone.script.len() && !alone.uncounted.starts_with(&c.uncounted) {
                let (got, want) = (c.uncounted.escape_ascii(), alone.uncounted.escape_ascii());
                return Err(format!("(4) client {} got {got} uncounted, directly {want}", c.id));
            }
            for ((seq, got), (same, want)) in c.heard.iter().zip(&alone.heard) {
                if seq != same || got != want && !c.is_own(*seq) {
                    let (got, want) = (got.escape_ascii(), want.escape_ascii());
                    return Err(format!("(4) client {} got {got} for command {seq}, directly {want}", c.id));
                }
            }
        }
        Ok(())
    }
}

/// What the proxy answers itself, or a script cannot go on after.
fn is_odd(what: &script::What) -> bool {
    matches!(what, script::What::Malformed | script::What::Quit | script::What::Refused)
}

/// The model server takes arrays only.
fn direct(bytes: &[u8]) -> Vec<u8> {
    if bytes.first() == Some(&b'*') {
        return bytes.to_vec();
    }
    let words: Vec<&[u8]> = bytes.split(|b| b" \r\n".contains(b)).filter(|w| !w.is_empty()).collect();
    if words.is_empty() { Vec::new() } else { resp::encode(&words) }
}

fn brief(e: &server::Executed) -> String {
    let (tag, name) = (e.tag, &e.name);
    let (at, server) = (e.at, e.server);
    format!(
        "{name} {}:{} on {server}/{} at {at:?} as {} in {} resp{}",
        tag.client, tag.seq, e.conn, e.user, e.db, e.proto
    )
}
