//! One run from start to verdict: a loop that looks at the proxy ten times a second, breaks what is due to be broken,
//! checks what a switch has cost, and shows it.
use super::SandboxArgs;
use super::book::{Switch, Verdict};
use super::chaos::{self, Chaos, Step, View};
use super::deployment::{Deployment, Options};
use super::growth::Growth;
use super::load::{Load, LoadOptions, Stats};
use super::proxy::{Proxy, Status};
use super::screen::{Frame, Screen, seconds, with_kinds};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks at the proxy. What is acknowledged between the last look at a term and the first at the next
/// counts as acknowledged before the switch.
const LOOK: Duration = Duration::from_millis(100);
/// How long the proxy may take until it serves.
const SERVE: Duration = Duration::from_secs(30);
/// How long the Sentinels and the proxy may take at the end until they agree, and for how long they must.
const SETTLE: Duration = Duration::from_secs(60);
const CALM: Duration = Duration::from_secs(3);
/// Between two checks without a switch.
const CHECK: Duration = Duration::from_secs(10);
/// A switch that comes later than this after what we broke is not put down to it.
const CAUSE: Duration = Duration::from_secs(30);

/// A run in progress. The fields are dropped in this order: the deployment last.
pub(super) struct Run {
    screen: Screen,
    signals: Signals,
    load: Option<Load>,
    proxy: Proxy,
    deployment: Deployment,
    begin: Instant,
    limit: Option<Duration>,
    seed: u64,
    chaos: Option<Chaos>,
    /// What was last broken, and when.
    broke: Option<(Duration, String)>,
    /// The last status that was had, and when it was asked for; why there is none now.
    status: Status,
    asked: Duration,
    dark: Option<String>,
    growth: Growth,
    checked: Duration,
    /// Operations done, when they were last counted, and the rate that this gave.
    counted: (u64, Duration, u64),
}

impl Run {
    /// Starts the servers, the proxy (`program`) before them, and the load.
    pub(super) fn start(args: &SandboxArgs, program: &Path) -> io::Result<Self> {
        // Until this is done the default action of a signal ends us; what was started ends with us.
        let server = args.server.clone();
        let options = Options { server, append_only: true, failover_timeout_ms: 6_000, ..Options::default() };
        let deployment = Deployment::start(options).map_err(io::Error::other)?;
        let mut proxy = Proxy::start(program, &deployment, args.port)?;
        let status = serving(&mut proxy)?;
        let begin = Instant::now();
        let load =
            (!args.no_load).then(|| Load::start(LoadOptions::small(proxy.listen()), begin)).transpose()?;
        let seed = args.seed.unwrap_or_else(|| u64::from(std::process::id()));
        Ok(Self {
            screen: Screen::open()?,
            signals: Signals::new([SIGINT, SIGTERM, SIGHUP])?,
            load,
            proxy,
            deployment,
            begin,
            limit: args.limit,
            seed,
            chaos: args.chaos.then(|| Chaos::new(seed)),
            broke: None,
            status,
            asked: Duration::ZERO,
            dark: None,
            growth: Growth::default(),
            checked: Duration::ZERO,
            counted: (0, Duration::ZERO, 0),
        })
    }

    /// Runs until it is told to end or its time is over. An error is one of the proxy or of the output.
    pub(super) fn go(&mut self) -> io::Result<()> {
        let welcome = format!(
            "redis-cli -p {} joins; {} is master{}",
            self.proxy.listen().port(),
            self.name_of(self.status.master.as_deref()),
            if self.chaos.is_some() { format!("; chaos with seed {}", self.seed) } else { String::new() }
        );
        self.say(&welcome)?;
        while self.limit.is_none_or(|limit| self.begin.elapsed() < limit) {
            self.turn()?;
            self.break_something()?;
            if self.signals.pending().next().is_some() {
                break;
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Ends the load, repairs what is broken, waits until all agree on the master, and checks for the last time. Says whether
    /// all is well, and the summary; an error says why there can be no verdict.
    pub(super) fn finish(mut self) -> io::Result<(bool, String)> {
        if let Some(load) = &mut self.load {
            load.stop();
        }
        if let Some(step) = self.chaos.as_ref().and_then(Chaos::repair) {
            self.perform(step)?;
        }
        let Some(mut stats) = self.load.as_ref().map(Load::stats) else {
            return Ok((self.growth.is_flat(), self.growth_line()));
        };
        self.say("ending: waiting until the Sentinels and the proxy agree")?;
        self.settle()?;
        let verified = self.last_check();
        let load = self.load.as_ref().expect("it was there");
        let verdict = load.verdict();
        stats.lost = verdict.lost();
        let mut text = summary(&stats, &verdict) + &self.growth_line();
        match verified {
            Ok(master) => {
                writeln!(text, "Every acknowledged write was looked for on {master}, the final master.")
                    .expect("writing to a String cannot fail")
            }
            Err(e) => return Err(io::Error::other(format!("{text}the writes could not be verified: {e}"))),
        }
        Ok((verdict.is_good() && self.growth.is_flat(), text))
    }

    fn growth_line(&self) -> String {
        self.growth.line().map(|line| line + "\n").unwrap_or_default()
    }

    fn turn(&mut self) -> io::Result<()> {
        if let Some(end) = self.proxy.ended() {
            return Err(io::Error::other(end));
        }
        self.look()?;
        let now = self.begin.elapsed();
        let due = self.load.as_ref().is_some_and(Load::check_due) || now > self.checked + CHECK;
        if due && self.check().is_ok() {
            self.checked = now;
        }
        if let Some(held) = self.proxy.held() {
            self.growth.note(now, held);
        }
        let frame = self.frame(now);
        self.screen.draw(&frame)
    }

    /// Asks the proxy, and takes note of a new term.
    fn look(&mut self) -> io::Result<()> {
        let asked = self.begin.elapsed();
        let status = match self.proxy.status() {
            Ok(status) => status,
            Err(e) => {
                self.dark = Some(e.to_string());
                return Ok(());
            }
        };
        let old = std::mem::replace(&mut self.status, status);
        (self.asked, self.dark) = (asked, None);
        if self.status.term != old.term { self.switched(&old) } else { Ok(()) }
    }

    fn switched(&mut self, old: &Status) -> io::Result<()> {
        let at = self.begin.elapsed();
        let (from, to) = (self.name_of(old.master.as_deref()), self.name_of(self.status.master.as_deref()));
        let cause = self.broke.take().filter(|(when, _)| at < *when + CAUSE).map(|(_, what)| what);
        let switch = Switch { at, term: self.status.term, from, to, cause };
        self.say(&told(&switch))?;
        if let Some(load) = &self.load {
            load.switched(switch);
        }
        Ok(())
    }

    /// Looks for the acknowledged writes on the node that the proxy last named.
    fn check(&self) -> io::Result<()> {
        let Some(load) = &self.load else { return Ok(()) };
        let node = self.node_of(self.status.master.as_deref());
        let node = node.ok_or_else(|| io::Error::other("the proxy names no node of ours"))?;
        load.check(&mut self.deployment.nodes[node].connect()?, self.asked)
    }

    fn break_something(&mut self) -> io::Result<()> {
        let now = self.begin.elapsed();
        let Some(chaos) = self.chaos.as_mut().filter(|chaos| chaos.due() <= now) else { return Ok(()) };
        // A repair needs no view, and who is stopped would be slow to give one.
        let view = match chaos.repair() {
            Some(_) => View { master: None, fit: vec![] },
            None => chaos::view(&self.deployment),
        };
        match chaos.step(now, &view) {
            Some(step) => self.perform(step),
            None => Ok(()),
        }
    }

    fn perform(&mut self, step: Step) -> io::Result<()> {
        let at = self.begin.elapsed();
        match chaos::perform(step, &self.deployment) {
            Ok(what) => {
                self.say(&what)?;
                if matches!(step, Step::Kill(_) | Step::Stop(_) | Step::Failover) {
                    self.broke = Some((at, what));
                }
                Ok(())
            }
            Err(e) => self.say(&format!("{step:?} did not work: {e}")),
        }
    }

    /// Waits until the Sentinels and the proxy have agreed on the master for a while, or it takes too long, or another
    /// signal comes.
    fn settle(&mut self) -> io::Result<()> {
        let begin = Instant::now();
        let mut disputed = begin;
        while disputed.elapsed() < CALM && begin.elapsed() < SETTLE && self.signals.pending().next().is_none()
        {
            self.turn()?;
            let master = self.deployment.undisputed_master();
            if master.is_none() || self.node_of(self.status.master.as_deref()) != master {
                disputed = Instant::now();
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Checks everything on the deployment's own idea of the master; says who that is.
    fn last_check(&mut self) -> io::Result<String> {
        let master = self.deployment.master().ok_or_else(|| io::Error::other("there is no master"))?;
        self.look()?;
        if self.node_of(self.status.master.as_deref()) != Some(master) {
            return Err(io::Error::other("the proxy names another master than the Sentinels"));
        }
        let node = &self.deployment.nodes[master];
        if let Some(load) = &self.load {
            load.check(&mut node.connect()?, load.now())?;
        }
        Ok(node.name().to_owned())
    }

    fn frame(&mut self, now: Duration) -> Frame {
        let stats = self.load.as_ref().map(Load::stats);
        let done = stats.as_ref().map_or(0, |s| s.writes + s.reads);
        let (before, when, _) = self.counted;
        if now >= when + Duration::from_secs(1) {
            let rate = (done - before) as f64 / (now - when).as_secs_f64();
            self.counted = (done, now, rate as u64);
        }
        Frame {
            elapsed: now,
            limit: self.limit,
            port: self.proxy.listen().port(),
            seed: self.chaos.is_some().then_some(self.seed),
            status: self.dark.clone().map_or_else(|| Ok(self.status.clone()), Err),
            master: self.name_of(self.status.master.as_deref()),
            stats,
            rate: self.counted.2,
        }
    }

    fn say(&mut self, what: &str) -> io::Result<()> {
        self.screen.event(self.begin.elapsed(), what)
    }

    fn node_of(&self, addr: Option<&str>) -> Option<usize> {
        self.deployment.nodes.iter().position(|node| Some(node.addr().to_string().as_str()) == addr)
    }

    fn name_of(&self, addr: Option<&str>) -> String {
        let node = self.node_of(addr).map(|i| self.deployment.nodes[i].name());
        node.or(addr).unwrap_or("nobody").to_owned()
    }
}

fn serving(proxy: &mut Proxy) -> io::Result<Status> {
    let begin = Instant::now();
    loop {
        if let Some(end) = proxy.ended() {
            return Err(io::Error::other(end));
        }
        let status = proxy.status();
        match status {
            Ok(status) if status.state == "serving" => return Ok(status),
            _ if begin.elapsed() < SERVE => std::thread::sleep(LOOK),
            other => {
                let why = other.map_or_else(|e| e.to_string(), |s| format!("{}: {}", s.state, s.why));
                let log = proxy.log_tail();
                return Err(io::Error::other(format!("the proxy does not serve ({why}):\n{log}")));
            }
        }
    }
}

fn told(switch: &Switch) -> String {
    let after = switch.cause.as_ref().map(|cause| format!(", after {cause}")).unwrap_or_default();
    format!("term {}: {} -> {}{after}", switch.term, switch.from, switch.to)
}

fn summary(stats: &Stats, verdict: &Verdict) -> String {
    let (pause, pause_at) = stats.longest_pause;
    let mut lines = vec![
        format!("{} writes acknowledged, {} uncertain; {} reads", stats.writes, stats.uncertain, stats.reads),
        format!("errors: {}", with_kinds(stats)),
        format!("longest pause between acknowledgements: {} at {}", seconds(pause), seconds(pause_at)),
        format!("switches: {}", verdict.tolls.len()),
    ];
    for toll in &verdict.tolls {
        let lost = match toll.lost {
            0 => "nothing lost".to_owned(),
            n => format!("{n} acknowledged writes are not on the new master"),
        };
        lines.push(format!("  {:>7}  {}: {lost}", seconds(toll.switch.at), told(&toll.switch)));
    }
    lines.push(format!("acknowledged writes that are missing: {}", verdict.lost()));
    if !verdict.unexplained.is_empty() {
        lines.push(format!("  {} of them while their node stayed master:", verdict.unexplained.len()));
        let some = verdict.unexplained.iter().take(10);
        lines.extend(some.map(|(id, at)| format!("    {} acknowledged at {}", id.key(), seconds(*at))));
    }
    if verdict.stale_reads > 0 {
        lines.push(format!("reads that did not show an acknowledged write: {}", verdict.stale_reads));
    }
    if verdict.wrong_replies > 0 {
        lines.push(format!("replies that did not belong to their command: {}", verdict.wrong_replies));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::book::{Toll, WriteId};

    #[test]
    fn the_summary_names_the_switch_that_took_writes_and_those_that_nothing_explains() {
        let switch = Switch {
            at: Duration::from_millis(12_100),
            term: 2,
            from: "node-1".into(),
            to: "node-3".into(),
            cause: Some("kill -9 of node-1".into()),
        };
        let verdict = Verdict {
            acknowledged: 100,
            tolls: vec![Toll { switch, lost: 4 }],
            unexplained: vec![(WriteId { writer: 1, seq: 7 }, Duration::from_secs(20))],
            ..Verdict::default()
        };
        let text = summary(&Stats { writes: 100, ..Stats::default() }, &verdict);
        assert!(
            text.contains("12.1 s  term 2: node-1 -> node-3, after kill -9 of node-1: 4 acknowledged writes"),
            "{text}"
        );
        assert!(text.contains("missing: 5") && text.contains("sandbox:1:7 acknowledged at 20.0 s"), "{text}");
    }
}
