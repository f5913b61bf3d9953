//! One round of one row: a deployment of its own, a load, a fault, and what became of it.
use crate::figures::{Evidence, Figures, InFlight, STALL_MS_MAX, Strike};
use crate::guard::Guard;
use crate::load::{Load, Operation, Outcome, WriteId};
use crate::network::{HOSTS, PROXY, Sides};
use crate::row::{Fault, Figure, Meanwhile, Protection, Row};
use crate::servers::{NODE_PORT, Server, Servers};
use crate::watch::{Seen, Watch};
use pointsman::client::{Client, Value};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long an election may take: a split vote is repeated after 20 s.
const PROMOTION_MAX: Duration = Duration::from_secs(45);
/// Until the load flows, from the start of the proxy.
const FLOW_MAX: Duration = Duration::from_secs(15);
/// So much of it by each writer.
const FLOWING: u64 = 40;
/// The number of the load that goes to the master directly.
const DIRECT: u32 = 9;
/// How long the load goes on where nobody was deposed, after everything was put right.
const NOBODY_DEPOSED: Duration = Duration::from_secs(4);
/// Keys per MGET.
const BATCH: usize = 500;

/// How rounds are played.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) guard: Arc<Guard>,
    pub(crate) pointsman: PathBuf,
    pub(crate) redis: PathBuf,
    /// Further lines of the service's configuration.
    pub(crate) lines: Vec<String>,
    /// How long what is broken stays so.
    pub(crate) outage: Duration,
    /// How long the load goes on after that: until well after an old master is demoted.
    pub(crate) after: Duration,
}

/// Why a round gave no figures.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The proxy did not do what it must.
    Proxy(String),
    /// What the row is about could not be done, or not be watched.
    Stage(io::Error),
}

impl Trouble {
    fn proxy(what: impl Into<String>) -> Self {
        Self::Proxy(what.into())
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Stage(error)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy(what) => f.write_str(what),
            Self::Stage(error) => write!(f, "could not be played: {error}"),
        }
    }
}

/// Why a round is no evidence, if it is none, so that it has to be played once more. Losses and dual writes always are.
pub(crate) fn no_evidence(played: &Result<Figures, Trouble>, row: &Row, with: Protection) -> Option<String> {
    match played {
        Ok(figures) => {
            let misses = figures.misses(&row.targets(with));
            let proven = misses.contains(&Figure::Lost) || misses.contains(&Figure::Dual);
            figures.disturbance().filter(|_| misses.contains(&Figure::Errors) && !proven)
        }
        Err(trouble @ Trouble::Stage(_)) => Some(trouble.to_string()),
        Err(Trouble::Proxy(_)) => None,
    }
}

impl Stage {
    /// Plays one round.
    pub(crate) fn play(&self, row: &Row, with: Protection) -> Result<Figures, Trouble> {
        let servers = Servers::start(&self.guard, &self.redis)?;
        let mut round = Round::begin(self, row, with, &servers)?;
        round.strike()?;
        round.promotion()?;
        if row.fault == Fault::Twice {
            round.strike_again()?;
        }
        round.heal()?;
        thread::sleep(if row.fault.deposes() { self.after } else { NOBODY_DEPOSED });
        round.end()
    }
}

struct Round<'a> {
    stage: &'a Stage,
    row: &'a Row,
    /// Lines of the service's configuration.
    lines: Vec<String>,
    servers: &'a Servers,
    begin: Instant,
    watch: Watch,
    proxies: Vec<Server>,
    loads: Vec<Load>,
    /// Clients of the first master itself, not of a proxy.
    direct: Option<Load>,
    strikes: Vec<Strike>,
    started: Option<Duration>,
    healed: Option<Duration>,
}

impl<'a> Round<'a> {
    /// Everything runs, and the loads flow.
    fn begin(
        stage: &'a Stage,
        row: &'a Row,
        with: Protection,
        servers: &'a Servers,
    ) -> Result<Self, Trouble> {
        let begin = Instant::now();
        let mut round = Self {
            stage,
            row,
            lines: with.line().into_iter().chain(stage.lines.iter().cloned()).collect(),
            servers,
            begin,
            watch: Watch::start(servers, begin),
            proxies: vec![],
            loads: vec![],
            direct: None,
            strikes: vec![],
            started: None,
            healed: None,
        };
        (0..row.proxies).try_for_each(|_| round.start_proxy())?;
        if row.direct {
            let node = servers.nodes[0].addr();
            round.direct = Some(Load::start(&servers.network.hosts[PROXY], node, DIRECT, begin));
        }
        let flowing = Instant::now();
        while round.loads.iter().chain(&round.direct).any(|load| load.acknowledged() < FLOWING) {
            round.alive()?;
            if flowing.elapsed() > FLOW_MAX {
                return Err(Trouble::proxy("the load does not flow through the proxy"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(round)
    }

    /// A proxy, and a load through it as soon as it listens.
    fn start_proxy(&mut self) -> Result<(), Trouble> {
        let number = self.proxies.len() as u16;
        let proxy = self.servers.proxy(&self.stage.pointsman, NODE_PORT + number, &self.lines)?;
        let listening = Instant::now();
        while proxy.host.run(|| Client::connect(proxy.addr(), FLOW_MAX)).is_err() {
            if let Some(ended) = proxy.ended() {
                return Err(Trouble::Proxy(ended));
            }
            if listening.elapsed() > FLOW_MAX {
                return Err(Trouble::proxy("the proxy does not listen"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.loads.push(Load::start(
            &self.servers.network.hosts[PROXY],
            proxy.addr(),
            number.into(),
            self.begin,
        ));
        self.proxies.push(proxy);
        Ok(())
    }

    fn alive(&self) -> Result<(), Trouble> {
        self.proxies.iter().find_map(Server::ended).map_or(Ok(()), |ended| Err(Trouble::Proxy(ended)))
    }

    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    fn strike(&mut self) -> Result<(), Trouble> {
        let Servers { nodes, sentinels, network, .. } = self.servers;
        let fault = self.row.fault;
        let in_flight = match fault {
            _ if fault.is_silent() => InFlight::EachWriter,
            Fault::Kill | Fault::Twice => InFlight::ThatMoment,
            Fault::Switchover => InFlight::OfOtherProxies,
            _ => InFlight::None,
        };
        let at = self.now();
        match fault {
            Fault::Kill | Fault::Twice => nodes[0].kill9(),
            Fault::Stop => nodes[0].signal(Signal::STOP),
            Fault::Cut | Fault::CutWithProxy | Fault::Isolate => {
                sides(fault).iter().try_for_each(|sides| network.cut(sides))?;
            }
            Fault::Failover => self.servers.failover(0)?,
            Fault::Switchover => self.switchover()?,
            Fault::MostSentinels => sentinels[1..].iter().for_each(Server::kill9),
            Fault::AllSentinels => sentinels.iter().for_each(Server::kill9),
            Fault::Replica => nodes[1].kill9(),
            Fault::Replicas => nodes[1..].iter().for_each(Server::kill9),
            Fault::StopReplicas => nodes[1..].iter().for_each(|node| node.signal(Signal::STOP)),
        }
        self.strikes.push(Strike { at, done: self.now(), in_flight });
        Ok(())
    }

    /// The command, run to its end where the proxy is.
    fn switchover(&self) -> Result<(), Trouble> {
        let admin = format!("127.0.0.1:{}", NODE_PORT + 1000);
        let mut command = Command::new(&self.stage.pointsman);
        command.args(["switchover", "faults", "--admin", &admin]).stdin(Stdio::null());
        let output = self.proxies[0].host.run(|| command.output())?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        let said = format!("the switchover failed: {}", String::from_utf8_lossy(&said));
        // It gives up, as it should, if somebody takes too long.
        let stall = self.watch.seen().stall(Duration::ZERO, self.now()).as_millis() as u64;
        if stall > STALL_MS_MAX { Err(io::Error::other(said).into()) } else { Err(Trouble::Proxy(said)) }
    }

    /// What was acknowledged to those who wrote to the first master itself. After a switchover they must have been refused.
    fn stop_direct(&mut self) -> Result<Option<Vec<WriteId>>, Trouble> {
        let Some(load) = self.direct.take() else { return Ok(None) };
        let writes = load.stop().writes;
        let refused = |o: &Operation| o.outcome == Outcome::Error("READONLY".into());
        if self.row.fault == Fault::Switchover && !writes.iter().any(refused) {
            return Err(Trouble::proxy("no direct write was refused by the deposed master"));
        }
        Ok(Some(writes.into_iter().filter(|o| o.outcome == Outcome::Good).map(|o| o.id).collect()))
    }

    /// Waits for it if there must be one; meanwhile does to the proxy what the row says.
    fn promotion(&mut self) -> Result<(), Trouble> {
        if !self.row.fault.deposes() {
            return Ok(());
        }
        if self.row.meanwhile == Meanwhile::Reload {
            thread::sleep(Duration::from_millis(300));
            self.proxies[0].signal(Signal::HUP);
        }
        self.promoted()?;
        match self.row.meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::Reload => {
                thread::sleep(Duration::from_millis(300));
                self.proxies[0].signal(Signal::HUP);
            }
            Meanwhile::Start => {
                thread::sleep(Duration::from_millis(100));
                self.started = Some(self.now());
                self.start_proxy()?;
            }
        }
        Ok(())
    }

    /// Waits until another node says that it is master, after the last strike.
    fn promoted(&self) -> io::Result<()> {
        let strike = self.strikes.last().expect("it is called after one");
        let promotion = self.watch.promotion(strike.at, PROMOTION_MAX);
        promotion.map(drop).ok_or_else(|| io::Error::other("the Sentinels promoted nobody"))
    }

    /// The successor is told to give up too, by the first Sentinel that knows it and is done with the first failover.
    fn strike_again(&mut self) -> Result<(), Trouble> {
        thread::sleep(Duration::from_secs(1));
        let asked = Instant::now();
        loop {
            let at = self.now();
            let master = self.watch.seen().promotions().last().map_or(0, |promotion| promotion.1);
            match self.servers.failover(master) {
                Ok(()) => {
                    let (done, in_flight) = (self.now(), InFlight::ThatMoment);
                    self.strikes.push(Strike { at, done, in_flight });
                    return Ok(self.promoted()?);
                }
                Err(e) if asked.elapsed() > PROMOTION_MAX => return Err(e.into()),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// At the end of the outage everything is put right again.
    fn heal(&mut self) -> Result<(), Trouble> {
        let fault = self.row.fault;
        if matches!(fault, Fault::Failover | Fault::Switchover) {
            return Ok(());
        }
        thread::sleep((self.strikes[0].at + self.stage.outage).saturating_sub(self.now()));
        self.alive()?;
        self.healed = Some(self.now());
        let Servers { nodes, sentinels, network, .. } = self.servers;
        sides(fault).iter().try_for_each(|sides| network.heal(sides))?;
        nodes.iter().for_each(|node| node.signal(Signal::CONT));
        Ok(nodes.iter().chain(sentinels).try_for_each(Server::revive)?)
    }

    fn end(mut self) -> Result<Figures, Trouble> {
        self.alive()?;
        let end = self.now();
        let journals: Vec<_> = self.loads.drain(..).map(Load::stop).collect();
        self.alive()?;
        let direct = self.stop_direct()?;
        let master = self.servers.wait_settled().map_err(|error| Trouble::Proxy(error.to_string()))?;
        let good = journals.iter().flat_map(|j| &j.writes).filter(|o| o.outcome == Outcome::Good);
        let acknowledged: Vec<WriteId> = good.map(|operation| operation.id).collect();
        let all: Vec<WriteId> = acknowledged.iter().chain(direct.iter().flatten()).copied().collect();
        let lost = missing(&self.servers.nodes[master], &all)?;
        let seen = self.watch.seen();
        require_witness(&seen, &acknowledged)?;
        let successor = seen.promotion(self.strikes[0].at);
        let majority = successor.and_then(|(_, node)| seen.majority(self.servers.nodes[node].host.ip, HOSTS));
        let Self { strikes, started, healed, .. } = self;
        Ok(Evidence { strikes, journals, direct, seen, lost, majority, healed, started, end }.figures())
    }
}

/// Without having seen them executed nothing could be called dual. A few are missed while MONITOR's connection is made anew.
fn require_witness(seen: &Seen, acknowledged: &[WriteId]) -> io::Result<()> {
    let executed: BTreeSet<&WriteId> = seen.executed.iter().map(|(_, _, id)| id).collect();
    let witnessed = acknowledged.iter().filter(|id| executed.contains(id)).count();
    if witnessed * 100 >= acknowledged.len() * 95 {
        return Ok(());
    }
    let all = acknowledged.len();
    Err(io::Error::other(format!("only {witnessed} of {all} acknowledged writes were seen on a node")))
}

/// What is cut off from what, if it is a partition.
fn sides(fault: Fault) -> Option<Sides> {
    match fault {
        Fault::Cut => Some((&[0], &[1, 2])),
        Fault::CutWithProxy => Some((&[0, PROXY], &[1, 2])),
        Fault::Isolate => Some((&[0], &[1, 2, PROXY])),
        _ => None,
    }
}

/// Those of the writes that the node does not have.
fn missing(node: &Server, writes: &[WriteId]) -> io::Result<BTreeSet<WriteId>> {
    node.host.run(|| {
        let mut client = Client::connect(node.addr(), Duration::from_secs(5))?;
        let mut missing = BTreeSet::new();
        for batch in writes.chunks(BATCH) {
            let keys = batch.iter().map(WriteId::key);
            let found = client.ask(&[String::from("MGET")].into_iter().chain(keys).collect::<Vec<_>>())?;
            if found.items().len() != batch.len() {
                return Err(io::Error::other("MGET did not answer for each key"));
            }
            let absent = |(id, value): &(&WriteId, &Value)| value.text() != Some(id.key());
            missing.extend(batch.iter().zip(found.items()).filter(absent).map(|(id, _)| *id));
        }
        Ok(missing)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::ROWS;

    fn is_played_again(played: &Result<Figures, Trouble>) -> bool {
        no_evidence(played, &ROWS[0], Protection::Default).is_some()
    }

    /// One uncertain write, and none in flight.
    fn uncertain(stall: u64) -> Figures {
        Figures { errors: [("UNCERTAIN".to_owned(), (1, 0))].into(), stall, ..Figures::default() }
    }

    #[test]
    fn what_the_servers_did_not_do_is_played_again_and_what_the_proxy_does_wrong_is_not() {
        assert!(is_played_again(&Err(io::Error::other("the Sentinels promoted nobody").into())));
        assert!(!is_played_again(&Err(Trouble::proxy("it ended"))));
    }

    #[test]
    fn an_error_too_many_is_played_again_only_if_it_may_have_another_reason() {
        assert!(is_played_again(&Ok(uncertain(STALL_MS_MAX + 1))));
        assert!(!is_played_again(&Ok(uncertain(STALL_MS_MAX))));
        let slow = Figures { stall: 10 * STALL_MS_MAX, ..Figures::default() };
        assert!(!is_played_again(&Ok(slow)), "there is no error");
    }

    #[test]
    fn no_stall_excuses_a_lost_or_a_dual_write() {
        let stalled = uncertain(10 * STALL_MS_MAX);
        assert!(!is_played_again(&Ok(Figures { lost: 1, ..stalled.clone() })));
        assert!(!is_played_again(&Ok(Figures { dual: 1, ..stalled })));
    }
}
