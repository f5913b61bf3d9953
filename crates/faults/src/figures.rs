//! From what was seen to the figures of a row. Pure.
use crate::load::{Journal, Operation, Outcome, WRITERS, WriteId};
use crate::report::IN_FLIGHT;
use crate::row::{Errors, Figure, GUARD_LOST_MAX, Lost, Pause, READY_MS_MAX, Targets, WRITES_PER_S};
use crate::watch::Seen;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A connection that breaks is noticed within this, and the stall of the machine, if there is one: nothing more is sent on it
/// then.
const NOTICED: Duration = Duration::from_millis(5);
/// A stall that ends within this time after a strike may have hidden it.
const STALLED: Duration = Duration::from_millis(200);
/// For so long a switchover can pause the master's writes, with down-after 1 s: 450 ms, less its own steps.
const PAUSE_MS: u64 = 400;
/// A quarter of down-after. If the machine stalls for longer, Sentinels and the proxy may see deaths that no row is about.
pub(crate) const STALL_MS_MAX: u64 = 250;
/// Commands are held for 10 s. Sentinels whose votes were split promote later than that.
const PROMOTION_MS_MAX: u64 = 8000;
/// How soon after the healing of a partition there must be service.
const HEALED_MS_MAX: u64 = 2000;

/// One blow: a row has one, or two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strike {
    pub(crate) at: Duration,
    /// When it was done: a busy machine takes its time to end a process that was killed.
    pub(crate) done: Duration,
    pub(crate) in_flight: InFlight,
}

/// How many writes each load may have in flight when it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InFlight {
    None,
    /// Those that were sent and not answered at that moment.
    ThatMoment,
    /// One for each writer: what is sent into the void before it is noticed.
    EachWriter,
    /// One for each writer of another proxy than the first: what is sent to a master that the first has paused.
    OfOtherProxies,
}

/// All that is known about one round of a row. Times count from its beginning.
#[derive(Debug)]
pub(crate) struct Evidence {
    pub(crate) strikes: Vec<Strike>,
    /// One for each proxy; the last is of the one that was started meanwhile, if one was.
    pub(crate) journals: Vec<Journal>,
    /// What was acknowledged to clients of the first master itself, if there were any.
    pub(crate) direct: Option<Vec<WriteId>>,
    pub(crate) seen: Seen,
    /// Acknowledged writes that the last master does not have, direct ones too.
    pub(crate) lost: BTreeSet<WriteId>,
    /// When a majority of the Sentinels named the successor of the first strike.
    pub(crate) majority: Option<Duration>,
    /// When the outage was over.
    pub(crate) healed: Option<Duration>,
    /// When the second proxy was started.
    pub(crate) started: Option<Duration>,
    /// When the loads ended.
    pub(crate) end: Duration,
}

/// The figures of one round. Durations are in ms.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) acknowledged: u64,
    pub(crate) lost: u64,
    pub(crate) dual: u64,
    /// Of direct clients: lost, and acknowledged.
    pub(crate) direct: Option<(u64, u64)>,
    /// Loads that ran when it struck first.
    pub(crate) loads: u64,
    /// By kind, of writes and of reads.
    pub(crate) errors: BTreeMap<String, (u64, u64)>,
    pub(crate) in_flight: u64,
    /// For each strike.
    pub(crate) pauses: Vec<StrikePause>,
    /// From the first strike until a majority of the Sentinels named the successor.
    pub(crate) majority: Option<u64>,
    /// Of the second proxy: from its start, or the majority if that came later, until its first acknowledgement. Less
    /// than 0 if it saw the majority before we did, or had another proof.
    pub(crate) ready: Option<i64>,
    /// Promotions in all, those without a strike included: Sentinels sometimes do it again.
    pub(crate) promotions: u64,
    /// For how long the machine stalled at most.
    pub(crate) stall: u64,
    /// The length of the outage, if there was one.
    pub(crate) outage: Option<u64>,
}

/// What followed a strike until the next, or the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StrikePause {
    /// The longest time between two acknowledgements.
    pub(crate) writes: u64,
    /// The longest time between two good answers to reads.
    pub(crate) reads: u64,
    /// Until another node said that it is master.
    pub(crate) promotion: Option<u64>,
}

impl StrikePause {
    /// The longest pause less the time until the promotion.
    pub(crate) fn excess(&self) -> Option<i64> {
        Some(self.writes.max(self.reads) as i64 - self.promotion? as i64)
    }
}

impl Evidence {
    /// Evaluates it.
    pub(crate) fn figures(&self) -> Figures {
        let writes = || self.journals.iter().flat_map(|journal| &journal.writes);
        let acknowledged: BTreeSet<WriteId> = writes().filter(|o| is_good(o)).map(|o| o.id).collect();
        let first = self.strikes[0].at;
        let since_strike = |at: Duration| ms(at.saturating_sub(first));
        Figures {
            acknowledged: acknowledged.len() as u64,
            lost: self.lost.intersection(&acknowledged).count() as u64,
            dual: self.dual(&acknowledged),
            direct: self.direct(),
            loads: self.first_journals().len() as u64,
            errors: self.errors(),
            in_flight: self.strikes.iter().map(|strike| self.in_flight(strike)).sum(),
            pauses: (0..self.strikes.len()).map(|i| self.pause(i)).collect(),
            majority: self.majority.map(since_strike),
            ready: self.ready(),
            promotions: self.seen.promotions().count() as u64,
            stall: ms(self.seen.stall(first, self.end)),
            outage: self.healed.map(since_strike),
        }
    }

    /// Those of the loads that ran when it struck first.
    fn first_journals(&self) -> &[Journal] {
        let late = usize::from(self.started.is_some());
        &self.journals[..self.journals.len() - late]
    }

    fn direct(&self) -> Option<(u64, u64)> {
        let acknowledged = self.direct.as_ref()?;
        let lost = acknowledged.iter().filter(|id| self.lost.contains(id)).count();
        Some((lost as u64, acknowledged.len() as u64))
    }

    /// Acknowledged writes that a node executed after another had been promoted in its place.
    fn dual(&self, acknowledged: &BTreeSet<WriteId>) -> u64 {
        let promotions: Vec<_> = self.seen.promotions().collect();
        let rightful =
            |at: Duration| promotions.iter().rev().find(|(promoted, _)| *promoted < at).map(|p| p.1);
        let is_dual = |at, node| rightful(at).is_some_and(|master| master != node);
        let dual: BTreeSet<&WriteId> =
            self.seen.executed.iter().filter(|(at, node, _)| is_dual(*at, *node)).map(|e| &e.2).collect();
        dual.into_iter().filter(|id| acknowledged.contains(id)).count() as u64
    }

    fn errors(&self) -> BTreeMap<String, (u64, u64)> {
        let mut errors: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for journal in &self.journals {
            for operation in &journal.writes {
                if let Some(kind) = self.error(operation) {
                    errors.entry(kind).or_default().0 += 1;
                }
            }
            for operation in &journal.reads {
                if let Some(kind) = self.error(operation) {
                    errors.entry(kind).or_default().1 += 1;
                }
            }
        }
        errors
    }

    /// A read that misses a write that is lost tells nothing new; one that misses another is stale.
    fn error(&self, operation: &Operation) -> Option<String> {
        match &operation.outcome {
            Outcome::Good => None,
            Outcome::Missing if self.lost.contains(&operation.id) => None,
            Outcome::Missing => Some("stale".into()),
            Outcome::Error(kind) => Some(kind.clone()),
        }
    }

    fn in_flight(&self, strike: &Strike) -> u64 {
        let noticed = strike.done + NOTICED + self.seen.stall(strike.at, strike.done + STALLED);
        let under_way = |o: &&Operation| o.sent <= noticed && o.answered >= strike.at;
        let writes = self.journals.iter().flat_map(|journal| &journal.writes);
        let count = match strike.in_flight {
            InFlight::None => 0,
            // A writer has one at a time.
            InFlight::ThatMoment => {
                let writers = writes.filter(under_way).map(|o| (o.id.load, o.id.writer));
                writers.collect::<BTreeSet<_>>().len()
            }
            InFlight::EachWriter => WRITERS * self.journals.len(),
            InFlight::OfOtherProxies => WRITERS * (self.journals.len() - 1),
        };
        count as u64
    }

    fn pause(&self, strike: usize) -> StrikePause {
        let from = self.strikes[strike].at;
        let until = self.strikes.get(strike + 1).map_or(self.end, |next| next.at);
        // What one proxy acknowledges does not end a pause of another.
        let longest = |of: fn(&Journal) -> &[Operation]| {
            let gaps = self.first_journals().iter().map(|journal| longest_gap(of(journal), from, until));
            gaps.max().unwrap_or_default()
        };
        StrikePause {
            writes: longest(|journal| &journal.writes),
            reads: longest(|journal| &journal.reads),
            promotion: self.seen.promotion(from).map(|(at, _)| ms(at - from)),
        }
    }

    fn ready(&self) -> Option<i64> {
        let began = self.started?.max(self.majority?);
        let first = self.journals.last()?.writes.iter().filter(|o| is_good(o)).map(|o| o.answered).min();
        Some(ms(first.unwrap_or(self.end)) as i64 - ms(began) as i64)
    }
}

impl Figures {
    /// What is aimed at and not reached.
    pub(crate) fn misses(&self, targets: &Targets) -> BTreeSet<Figure> {
        let direct_lost = self.direct.map_or(0, |direct| direct.0);
        let is_long = |pause: &StrikePause| {
            self.is_longer(pause, pause.writes, targets.pause_of_writes)
                || self.is_longer(pause, pause.reads, targets.pause_of_reads)
        };
        // The writes of another proxy that were paused are then executed, where its master may be deposed by now.
        let ended = targets.direct_is_safe && self.loads > 1 && !self.is_promoted_in_time();
        let errors = if ended { Errors { in_flight: &IN_FLIGHT, ..targets.errors } } else { targets.errors };
        let checks = [
            (Figure::Lost, self.lost > self.lost_max(targets.lost)),
            (Figure::Lost, targets.direct_is_safe && self.is_promoted_in_time() && direct_lost > 0),
            (Figure::Dual, self.dual > 0),
            (Figure::Errors, !self.errors_allowed(errors)),
            (Figure::Pause, self.pauses.iter().any(is_long)),
            (Figure::Ready, self.ready.is_some_and(|ready| ready > READY_MS_MAX)),
        ];
        checks.into_iter().filter(|check| check.1).map(|check| check.0).collect()
    }

    /// What was not the proxy's doing and can have made errors.
    pub(crate) fn disturbance(&self) -> Option<String> {
        let promotion = self.pauses.iter().filter_map(|pause| pause.promotion).max().unwrap_or_default();
        if promotion > PROMOTION_MS_MAX {
            return Some(format!("the Sentinels took {promotion} ms to promote a node"));
        }
        (self.stall > STALL_MS_MAX).then(|| format!("the machine stalled for {} ms", self.stall))
    }

    /// What of it is a failure: no pause, as they depend on the machine, and no errors that have another reason.
    pub(crate) fn broken(&self, targets: &Targets) -> BTreeSet<Figure> {
        let mut broken = self.misses(targets);
        broken.retain(|figure| match figure {
            Figure::Lost | Figure::Dual => true,
            Figure::Errors => self.disturbance().is_none(),
            Figure::Pause | Figure::Ready => false,
        });
        broken
    }

    /// Whether a switchover's pause of the master's writes can have lasted until the promotion.
    fn is_promoted_in_time(&self) -> bool {
        let promotion = self.pauses.first().and_then(|pause| pause.promotion);
        promotion.is_some_and(|promotion| promotion + self.stall <= PAUSE_MS)
    }

    fn is_longer(&self, pause: &StrikePause, ms: u64, target: Pause) -> bool {
        match target {
            Pause::AfterPromotion(more) => pause.promotion.is_none_or(|promotion| ms > promotion + more),
            Pause::AtMost(most) => ms > most,
            Pause::UntilHealed => ms > self.outage.unwrap_or_default() + HEALED_MS_MAX,
        }
    }

    /// Where some may be lost before it is noticed, a machine that stalls delays that.
    fn lost_max(&self, allowed: Lost) -> u64 {
        let per_load = match allowed {
            Lost::None => 0,
            Lost::UntilNoticed => GUARD_LOST_MAX + WRITES_PER_S * self.stall / 1000,
            Lost::UntilPromotion => {
                let promotion = self.pauses.first().and_then(|pause| pause.promotion).unwrap_or_default();
                WRITERS as u64 + WRITES_PER_S * (promotion + self.stall) / 1000
            }
        };
        per_load * self.loads
    }

    fn errors_allowed(&self, allowed: Errors) -> bool {
        let is_of = |kinds: &[&str], kind: &str| kinds.contains(&kind);
        let all = || self.errors.iter().map(|(kind, counts)| (kind.as_str(), counts));
        let in_flight: u64 =
            all().filter(|(kind, _)| is_of(allowed.in_flight, kind)).map(|(_, counts)| counts.0).sum();
        let is_allowed = |(kind, counts): (&str, &(u64, u64))| {
            is_of(allowed.any, kind) || (is_of(allowed.in_flight, kind) && counts.1 == 0)
        };
        in_flight <= self.in_flight && all().all(is_allowed)
    }

    /// Everything, for programs.
    pub(crate) fn json(&self) -> Value {
        let pause = |p: &StrikePause| json!({"writes_ms": p.writes, "reads_ms": p.reads, "promotion_ms": p.promotion, "excess_ms": p.excess()});
        let errors: BTreeMap<&String, Value> =
            self.errors.iter().map(|(kind, of)| (kind, json!({"writes": of.0, "reads": of.1}))).collect();
        json!({
            "acknowledged": self.acknowledged, "lost": self.lost, "dual": self.dual, "errors": errors,
            "direct": self.direct.map(|(lost, acknowledged)| json!({"lost": lost, "acknowledged": acknowledged})),
            "in_flight": self.in_flight, "pauses": self.pauses.iter().map(pause).collect::<Vec<_>>(),
            "majority_ms": self.majority, "promotions": self.promotions, "stall_ms": self.stall, "ready_ms": self.ready, "outage_ms": self.outage,
        })
    }
}

fn is_good(operation: &Operation) -> bool {
    operation.outcome == Outcome::Good
}

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// The longest time between two good answers, from the last before `from`; a gap at the end counts too.
fn longest_gap(operations: &[Operation], from: Duration, until: Duration) -> u64 {
    let mut good: Vec<Duration> =
        operations.iter().filter(|o| is_good(o)).map(|o| o.answered).filter(|at| *at <= until).collect();
    good.sort();
    good.push(until);
    let last_before = good.partition_point(|at| *at <= from).saturating_sub(1);
    ms(good[last_before..].windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{Protection, ROWS};

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn id(seq: u64) -> WriteId {
        WriteId { load: 0, writer: 0, seq }
    }

    fn operation(seq: u64, sent: u64, answered: u64, outcome: Outcome) -> Operation {
        Operation { id: id(seq), sent: at(sent), answered: at(answered), outcome }
    }

    fn targets(name: &str) -> Targets {
        with(name, Protection::Default)
    }

    fn with(name: &str, protection: Protection) -> Targets {
        ROWS.iter().find(|row| row.name == name).expect("it is in the table").targets(protection)
    }

    /// A kill at 100; node 1 is promoted at 1500. Write 1 is in flight, writes go on at 1550.
    fn kill() -> Evidence {
        let uncertain = Outcome::Error("UNCERTAIN".into());
        let writes = vec![
            operation(0, 90, 95, Outcome::Good),
            operation(1, 99, 101, uncertain),
            operation(2, 110, 1550, Outcome::Good),
            operation(3, 1560, 1570, Outcome::Good),
        ];
        let reads = vec![operation(0, 96, 97, Outcome::Good), operation(0, 98, 1551, Outcome::Good)];
        Evidence {
            strikes: vec![Strike { at: at(100), done: at(100), in_flight: InFlight::ThatMoment }],
            journals: vec![Journal { writes, reads }],
            direct: None,
            seen: Seen {
                claims: vec![(at(0), 0, true), (at(0), 1, false), (at(0), 2, false), (at(1500), 1, true)],
                ..Seen::default()
            },
            lost: BTreeSet::new(),
            majority: Some(at(2400)),
            healed: None,
            started: None,
            end: at(1580),
        }
    }

    #[test]
    fn a_good_failover_meets_every_target() {
        let figures = kill().figures();
        assert_eq!((figures.acknowledged, figures.lost, figures.dual, figures.in_flight), (3, 0, 0, 1));
        assert_eq!(figures.errors["UNCERTAIN"], (1, 0));
        let pause = StrikePause { writes: 1455, reads: 1454, promotion: Some(1400) };
        assert_eq!(figures.pauses, [pause]);
        assert_eq!((pause.excess(), figures.majority), (Some(55), Some(2300)));
        assert!(figures.misses(&targets("F1")).is_empty());
    }

    #[test]
    fn an_uncertain_write_that_was_not_in_flight_is_an_error_too_many() {
        let mut evidence = kill();
        evidence.journals[0].writes.push(operation(4, 1571, 1575, Outcome::Error("UNCERTAIN".into())));
        assert_eq!(evidence.figures().misses(&targets("F1")), [Figure::Errors].into());
    }

    #[test]
    fn what_is_sent_until_the_master_is_dead_is_in_flight() {
        let mut evidence = kill();
        let of_another = |sent| {
            let uncertain = operation(0, sent, 130, Outcome::Error("UNCERTAIN".into()));
            Operation { id: WriteId { writer: 1, ..id(0) }, ..uncertain }
        };
        evidence.journals[0].writes.push(of_another(120));
        assert_eq!(evidence.figures().misses(&targets("F1")), [Figure::Errors].into());
        evidence.strikes[0].done = at(120);
        assert!(evidence.figures().misses(&targets("F1")).is_empty());
    }

    #[test]
    fn an_error_of_another_kind_or_of_a_read_is_never_excused() {
        for kind in ["READONLY", "closed", "MASTERDOWN"] {
            let mut evidence = kill();
            evidence.journals[0].writes[1].outcome = Outcome::Error(kind.into());
            assert_eq!(evidence.figures().misses(&targets("F1")), [Figure::Errors].into(), "{kind}");
        }
        let mut evidence = kill();
        evidence.journals[0].reads.push(operation(2, 1555, 1556, Outcome::Error("UNCERTAIN".into())));
        assert_eq!(evidence.figures().misses(&targets("F1")), [Figure::Errors].into());
    }

    #[test]
    fn an_election_that_takes_longer_than_the_hold_excuses_errors() {
        let figures = Figures { errors: [("MASTERDOWN".into(), (9, 9))].into(), ..kill().figures() };
        let broken = |promotion| {
            let pauses = vec![StrikePause { promotion: Some(promotion), ..figures.pauses[0] }];
            Figures { pauses, ..figures.clone() }.broken(&targets("F1"))
        };
        assert_eq!(broken(PROMOTION_MS_MAX), [Figure::Errors].into());
        assert!(broken(PROMOTION_MS_MAX + 1).is_empty());
    }

    #[test]
    fn a_stalled_machine_excuses_errors_and_neither_losses_nor_dual_writes() {
        let all =
            Figures { lost: 1, dual: 1, errors: [("closed".into(), (1, 0))].into(), ..kill().figures() };
        let broken = |stall| Figures { stall, ..all.clone() }.broken(&targets("F1"));
        assert_eq!(broken(STALL_MS_MAX), [Figure::Lost, Figure::Dual, Figure::Errors].into());
        assert_eq!(broken(STALL_MS_MAX + 1), [Figure::Lost, Figure::Dual].into());
    }

    #[test]
    fn an_acknowledged_write_on_the_deposed_node_is_dual_and_one_before_is_not() {
        let mut evidence = kill();
        evidence.seen.executed =
            vec![(at(1499), 0, id(0)), (at(1501), 0, id(2)), (at(1569), 1, id(3)), (at(1570), 0, id(1))];
        evidence.lost = [id(2)].into();
        let figures = evidence.figures();
        assert_eq!((figures.lost, figures.dual), (1, 1), "write 1 was not acknowledged");
        assert_eq!(figures.misses(&targets("F1")), [Figure::Lost, Figure::Dual].into());
    }

    #[test]
    fn only_where_some_may_be_lost_a_stall_excuses_more() {
        let figures = |lost, stall| Figures { lost, stall, ..kill().figures() };
        let misses = |name, lost, stall| figures(lost, stall).misses(&targets(name)).contains(&Figure::Lost);
        assert_eq!([misses("F3", 87, 0), misses("F3", 88, 0), misses("F3", 116, 100)], [false, true, false]);
        assert!(misses("F3", 117, 100) && misses("F1", 1, 100));
    }

    #[test]
    fn without_the_guard_only_what_was_written_before_the_promotion_may_be_lost() {
        let misses = |lost| Figures { lost, ..kill().figures() }.misses(&with("F3", Protection::NoGuard));
        assert!(misses(406 + 8).is_empty(), "290 a second until 1400 ms, and one of each writer");
        assert_eq!(misses(406 + 9), [Figure::Lost].into());
    }

    #[test]
    fn a_write_in_flight_may_be_not_durable_only_where_writes_are_durable() {
        let mut evidence = kill();
        evidence.journals[0].writes[1].outcome = Outcome::Error("NOTDURABLE".into());
        let misses =
            |evidence: &Evidence, name, protection| evidence.figures().misses(&with(name, protection));
        assert!(misses(&evidence, "F1", Protection::Durable).is_empty());
        assert_eq!(misses(&evidence, "F1", Protection::Default), [Figure::Errors].into());
        assert!(misses(&evidence, "F4", Protection::Durable).contains(&Figure::Errors));
        let uncertain = Outcome::Error("UNCERTAIN".into());
        evidence.journals[0].writes.push(operation(4, 1571, 1575, uncertain));
        assert_eq!(
            misses(&evidence, "F1", Protection::Durable),
            [Figure::Errors].into(),
            "both kinds together"
        );
    }

    #[test]
    fn what_direct_clients_lose_is_asserted_only_of_a_switchover() {
        let direct = |seq| WriteId { load: 9, ..id(seq) };
        let mut evidence = kill();
        evidence.direct = Some(vec![direct(0), direct(1)]);
        evidence.lost = [direct(1)].into();
        let figures = evidence.figures();
        assert_eq!((figures.lost, figures.direct), (0, Some((1, 2))));
        assert!(figures.misses(&targets("two-F1")).is_empty());
        let misses = |promotion, stall| {
            let pauses = vec![StrikePause { promotion: Some(promotion), ..figures.pauses[0] }];
            Figures { pauses, stall, ..figures.clone() }.misses(&targets("two-F4s"))
        };
        assert!(misses(PAUSE_MS, 0).contains(&Figure::Lost));
        assert!(!misses(PAUSE_MS + 1, 0).contains(&Figure::Lost), "the pause had ended");
        assert!(!misses(PAUSE_MS, 1).contains(&Figure::Lost), "the machine stalled");
    }

    #[test]
    fn errors_of_the_other_proxy_are_excused_where_the_pause_of_a_switchover_had_ended() {
        let errors = [("UNCERTAIN".into(), (1, 0))].into();
        let figures = Figures { errors, in_flight: 8, loads: 2, ..kill().figures() };
        let misses = |promotion, row| {
            let pauses = vec![StrikePause { promotion: Some(promotion), ..figures.pauses[0] }];
            Figures { pauses, ..figures.clone() }.misses(&targets(row)).contains(&Figure::Errors)
        };
        assert!(misses(PAUSE_MS, "two-F4s") && !misses(PAUSE_MS + 1, "two-F4s"));
        assert!(misses(PAUSE_MS + 1, "two-F4"));
    }

    #[test]
    fn of_two_proxies_the_longer_pause_counts_and_each_may_lose_what_one_may() {
        let mut evidence = kill();
        let of_other = |mut operation: Operation| {
            operation.id.load = 1;
            operation
        };
        let first = of_other(operation(0, 90, 99, Outcome::Good));
        let last = of_other(operation(1, 1000, 1575, Outcome::Good));
        evidence.journals.push(Journal { writes: vec![first, last], reads: vec![] });
        let figures = evidence.figures();
        assert_eq!((figures.pauses[0].writes, figures.loads), (1476, 2));
        let misses = |lost| Figures { lost, ..evidence.figures() }.misses(&targets("two-F3"));
        assert_eq!([misses(174), misses(175)].map(|missed| missed.contains(&Figure::Lost)), [false, true]);
    }

    #[test]
    fn a_second_promotion_makes_another_node_rightful() {
        let mut evidence = kill();
        evidence.seen.claims.push((at(1560), 2, true));
        evidence.seen.executed = vec![(at(1549), 1, id(2)), (at(1569), 2, id(3))];
        let figures = evidence.figures();
        assert_eq!((figures.dual, figures.promotions), (0, 2));
        evidence.seen.executed[0].0 = at(1561);
        assert_eq!(evidence.figures().dual, 1);
    }

    #[test]
    fn a_read_that_misses_an_acknowledged_write_is_stale_unless_the_write_is_lost() {
        let mut evidence = kill();
        evidence.journals[0].reads.push(operation(2, 1555, 1556, Outcome::Missing));
        assert_eq!(evidence.figures().errors["stale"], (0, 1));
        evidence.lost = [id(2)].into();
        assert_eq!(evidence.figures().errors.get("stale"), None);
    }

    #[test]
    fn a_pause_that_lasts_until_the_end_counts() {
        let mut evidence = kill();
        evidence.end = at(9000);
        let figures = evidence.figures();
        assert_eq!(figures.pauses[0].writes, 7430);
        assert_eq!(figures.misses(&targets("F1")), [Figure::Pause].into());
    }

    #[test]
    fn without_a_promotion_no_pause_is_short_enough() {
        let mut evidence = kill();
        evidence.seen = Seen::default();
        assert_eq!(evidence.figures().misses(&targets("F1")), [Figure::Pause].into());
    }

    #[test]
    fn a_second_proxy_is_ready_from_its_first_acknowledgement_after_the_proof() {
        let mut evidence = kill();
        evidence.started = Some(at(1600));
        let write = Operation {
            id: WriteId { load: 1, ..id(0) },
            sent: at(1650),
            answered: at(2450),
            outcome: Outcome::Good,
        };
        evidence.journals.push(Journal { writes: vec![write], reads: vec![] });
        assert_eq!(evidence.figures().ready, Some(50));
        evidence.journals[1].writes[0].answered = at(2800);
        assert!(evidence.figures().misses(&targets("F9s-F1")).contains(&Figure::Ready));
    }
}
