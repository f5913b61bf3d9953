//! Errands of the control plane: switchovers, and demotions of deposed masters. Their machines decide; here their
//! connections are made, and their wishes are handed to the topology and to the people.
use super::Control;
use super::wire::{Happened, Heard, What, Wires};
use crate::clock;
use pointsman_core::Now;
use pointsman_core::switchover::{Credentials, Demotion, Do, Order, Said, Switchover};
use pointsman_core::topology::pause::Pauser;
use pointsman_core::topology::settings::HostPort;
use pointsman_core::topology::snapshot::ServiceId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Lines of an account that are kept.
const LINES_MAX: usize = 200;
/// How long a process that stops waits for a switchover to put back what it changed.
const STOP_MAX: Duration = Duration::from_secs(2);

/// The account of a service's last switchover.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Tells one switchover from the next.
    pub number: u64,
    /// When it was ordered.
    pub began: Now,
    /// What it said, oldest first.
    pub said: Vec<Said>,
    /// How it ended, if it has.
    pub outcome: Option<Result<String, String>>,
}

/// The accounts of all services.
pub(super) type Accounts = Arc<Mutex<BTreeMap<ServiceId, Account>>>;

pub(super) fn account(accounts: &Accounts, service: ServiceId) -> Option<Account> {
    accounts.lock().unwrap_or_else(PoisonError::into_inner).get(&service).cloned()
}

enum Machine {
    Switchover(Box<Switchover>),
    Demotion(Box<Demotion>, HostPort),
}

/// An errand, its service and its connections.
pub(super) struct Errand {
    service: ServiceId,
    machine: Machine,
    wires: Wires,
}

impl Errand {
    pub(super) fn demotion(service: ServiceId, demotion: Demotion, node: HostPort, wires: Wires) -> Errand {
        Errand { service, machine: Machine::Demotion(Box::new(demotion), node), wires }
    }

    /// Whether it tells this node of that service to follow another.
    pub(super) fn demotes(&self, service: ServiceId, at: &HostPort) -> bool {
        self.service == service && matches!(&self.machine, Machine::Demotion(_, node) if node == at)
    }

    fn is_switchover(&self) -> bool {
        matches!(self.machine, Machine::Switchover(_))
    }

    fn heard(&mut self, now: Now, what: What) {
        match (&mut self.machine, what) {
            (Machine::Switchover(m), What::InFlight(n)) => m.in_flight(now, n),
            (Machine::Demotion(..), What::InFlight(_)) => {}
            (_, What::Line(id, number, _)) if !self.wires.is_open(id, number) => {}
            (Machine::Switchover(m), What::Line(id, _, happened)) => match happened {
                Happened::Connected => m.connected(now, id),
                Happened::Bytes(bytes) => m.bytes(now, id, &bytes),
                Happened::Gone(why) => {
                    self.wires.close(id);
                    m.gone(now, id, &why);
                }
            },
            (Machine::Demotion(m, _), What::Line(id, _, happened)) => match happened {
                Happened::Connected => m.connected(),
                Happened::Bytes(bytes) => m.bytes(now, &bytes),
                Happened::Gone(why) => {
                    self.wires.close(id);
                    m.gone(now, &why);
                }
            },
        }
    }

    fn timeout(&mut self, now: Now) {
        match &mut self.machine {
            Machine::Switchover(m) => m.timeout(now),
            Machine::Demotion(m, _) => m.timeout(now),
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Now> {
        match &self.machine {
            Machine::Switchover(m) => m.next_timeout(),
            Machine::Demotion(m, _) => m.next_timeout(),
        }
    }

    fn poll(&mut self) -> Option<Do> {
        match &mut self.machine {
            Machine::Switchover(m) => m.poll(),
            Machine::Demotion(m, _) => m.poll(),
        }
    }
}

impl Control {
    /// Begins a switchover.
    pub(super) fn switch(&mut self, now: Now, id: ServiceId, order: Order) -> Result<(), String> {
        let service = self.services.get(&id).ok_or("there is no such service")?;
        if self.errands.values().any(|e| e.service == id && e.is_switchover()) {
            return Err("a switchover of this service goes on already".into());
        }
        service.topology.may_switch().map_err(|why| format!("refused, nothing was changed: {why}"))?;
        if service.topology.paused_by(Pauser::Operator) {
            return Err(
                "refused, nothing was changed: the service is paused; `pointsman resume` first".into()
            );
        }
        let credentials = Credentials {
            node: service.settings.node_credential.clone(),
            sentinel: service.settings.sentinel_credential.clone(),
        };
        let machine = Switchover::new(now, service.topology.outlook(), order, credentials);
        let number = self.next_errand();
        let wires = Wires::new(number, self.reported.clone());
        let machine = Machine::Switchover(Box::new(machine));
        self.errands.insert(number, Errand { service: id, machine, wires });
        let account = Account { number, began: now, ..Account::default() };
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).insert(id, account);
        Ok(())
    }

    pub(super) fn next_errand(&mut self) -> u64 {
        self.errands_made += 1;
        self.errands_made
    }

    /// Something happened to an errand.
    pub(super) fn heard(&mut self, now: Now, heard: Heard) {
        if let Some(errand) = self.errands.get_mut(&heard.errand) {
            errand.heard(now, heard.what);
        }
    }

    /// Shows the errands what the topologies know now, and does what they want done.
    pub(super) fn run_errands(&mut self, now: Now) {
        let all: Vec<u64> = self.errands.keys().copied().collect();
        for number in all {
            let Some(errand) = self.errands.get_mut(&number) else { continue };
            if errand.next_timeout().is_some_and(|at| at <= now) {
                errand.timeout(now);
            }
            match (&mut errand.machine, self.services.get(&errand.service)) {
                (Machine::Switchover(m), Some(service)) => m.look(now, service.topology.outlook()),
                (Machine::Switchover(m), None) => m.cancel(now),
                (Machine::Demotion(..), _) => {}
            }
            while let Some(wanted) = self.errands.get_mut(&number).and_then(Errand::poll) {
                self.carry_out(now, number, wanted);
            }
        }
    }

    fn carry_out(&mut self, now: Now, number: u64, wanted: Do) {
        let Some(errand) = self.errands.get_mut(&number) else { return };
        let id = errand.service;
        match wanted {
            Do::Connect(line, at) => errand.wires.connect(line, at),
            Do::Send(line, bytes) => errand.wires.send(line, bytes),
            Do::Close(line) => errand.wires.close(line),
            Do::Hold(span) => self.on(id, |t| {
                // Whether it may was asked when the switchover began; an operator's pause since then holds as well.
                let _ = t.pause(now, Pauser::Switchover, span);
            }),
            Do::Release => self.on(id, |t| drop(t.resume(now, Pauser::Switchover))),
            Do::Count => self.count(id, number),
            Do::Say(said) => self.say(id, number, said),
            Do::Finish(outcome) => self.finish(now, number, outcome),
        }
    }

    /// Has the workers asked, behind the snapshot that holds them.
    fn count(&mut self, id: ServiceId, errand: u64) {
        self.publish();
        let (publisher, out) = (self.publisher.clone(), self.reported.clone());
        tokio::task::spawn_blocking(move || {
            let what = What::InFlight(publisher.in_flight(id));
            // Nobody waits for it any more if the control plane has ended.
            let _ = out.blocking_send(Heard { errand, what });
        });
    }

    fn say(&mut self, id: ServiceId, number: u64, said: Said) {
        let text = format!("switchover: {}", said.text);
        self.on(id, |t| t.note(said.at, said.warning, text));
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get_mut(&id).filter(|a| a.number == number) {
            if account.said.len() < LINES_MAX {
                account.said.push(said);
            }
        }
    }

    fn finish(&mut self, now: Now, number: u64, outcome: Result<String, String>) {
        let Some(errand) = self.errands.remove(&number) else { return };
        let id = errand.service;
        match errand.machine {
            Machine::Demotion(_, node) => self.on(id, |t| t.demoted(now, &node, outcome)),
            Machine::Switchover(_) => {
                let (warning, text) = match &outcome {
                    Ok(text) => (false, text),
                    Err(text) => (true, text),
                };
                let text = format!("switchover: {text}");
                self.on(id, |t| t.note(now, warning, text));
                let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(account) = accounts.get_mut(&id).filter(|a| a.number == number) {
                    account.outcome = Some(outcome);
                }
            }
        }
    }

    /// Has switchovers put back what they can; until when that is waited for.
    pub(super) fn wind_up(&mut self, now: Now) -> Now {
        for errand in self.errands.values_mut() {
            if let Machine::Switchover(m) = &mut errand.machine {
                m.cancel(now);
            }
        }
        self.run_errands(clock::now());
        now + STOP_MAX
    }

    /// Whether a switchover goes on.
    pub(super) fn is_switching(&self) -> bool {
        self.errands.values().any(Errand::is_switchover)
    }
}
