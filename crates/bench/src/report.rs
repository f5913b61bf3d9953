//! From cells to what people read: medians, spreads, ratios; as text, Markdown and JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::peers::Peer;
use crate::scenario::{Action, Cell, Metric, Scenario};

/// What a peer gave in one round.
pub(crate) type Outcome = Result<Cell, String>;

/// The median of some figures, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// None of nothing.
    fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median = match figures.len() % 2 {
            0 => (figures[middle - 1] + figures[middle]) / 2.0,
            _ => figures[middle],
        };
        Some(Spread { median, min, max })
    }
}

/// All outcomes of a run.
pub(crate) struct Report<'a> {
    /// What was measured how and where: a word and what it says.
    about: Vec<(&'static str, String)>,
    scenarios: Vec<&'a Scenario>,
    peers: Vec<Peer>,
    outcomes: BTreeMap<(&'a str, Peer), Vec<Outcome>>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(
        about: Vec<(&'static str, String)>,
        scenarios: Vec<&'a Scenario>,
        peers: Vec<Peer>,
    ) -> Self {
        Report { about, scenarios, peers, outcomes: BTreeMap::new() }
    }

    /// What is compared in it.
    pub(crate) fn scenarios(&self) -> &[&'a Scenario] {
        &self.scenarios
    }

    /// Adds the outcome of the next round of `peer` in `scenario`.
    pub(crate) fn add(&mut self, scenario: &'a Scenario, peer: Peer, outcome: Outcome) {
        self.outcomes.entry((scenario.name, peer)).or_default().push(outcome);
    }

    /// How many cells failed.
    pub(crate) fn failures(&self) -> usize {
        self.outcomes.values().flatten().filter(|outcome| outcome.is_err()).count()
    }

    fn of(&self, scenario: &Scenario, peer: Peer) -> &[Outcome] {
        self.outcomes.get(&(scenario.name, peer)).map_or(&[], Vec::as_slice)
    }

    fn spread(&self, scenario: &Scenario, peer: Peer, metric: Metric) -> Option<Spread> {
        let cells = self.of(scenario, peer).iter().flatten();
        Spread::of(cells.filter_map(|cell| cell.get(&metric).copied()).collect())
    }

    /// Within each round to HAProxy's figure of the same round, as the machine's speed drifts between rounds.
    fn ratio(&self, scenario: &Scenario, peer: Peer, metric: Metric) -> Option<Spread> {
        let pairs = self.of(scenario, peer).iter().zip(self.of(scenario, Peer::Haproxy));
        let ratios = pairs.filter_map(|(own, reference)| {
            let figure = |outcome: &Outcome| outcome.as_ref().ok()?.get(&metric).copied();
            let (own, reference) = (figure(own)?, figure(reference)?);
            (reference != 0.0).then(|| own / reference)
        });
        Spread::of(ratios.collect())
    }

    fn failure(&self, scenario: &Scenario, peer: Peer) -> Option<String> {
        let outcomes = self.of(scenario, peer);
        let mut errors = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        let first = errors.next()?;
        let (failed, rounds) = (1 + errors.count(), outcomes.len());
        Some(format!("{} failed in {failed} of {rounds} rounds: {first}", peer.name()))
    }

    /// Aligned tables for a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (word, says) in &self.about {
            let _ = writeln!(text, "{word:<10} {says}");
        }
        for scenario in &self.scenarios {
            let _ = writeln!(text, "\n{}: {}", scenario.name, scenario.about);
            text += &aligned(&self.rows(scenario));
            for failure in self.peers.iter().filter_map(|&peer| self.failure(scenario, peer)) {
                let _ = writeln!(text, "  ! {failure}");
            }
        }
        text
    }

    fn rows(&self, scenario: &Scenario) -> Vec<Vec<String>> {
        let columns = columns(scenario);
        let head = ["peer"].into_iter().chain(columns.iter().map(|column| column.head)).map(str::to_owned);
        let body = self.peers.iter().map(|&peer| {
            let figures = columns.iter().map(|column| {
                let spread = match column.to_reference {
                    true => self.ratio(scenario, peer, column.metric),
                    false => self.spread(scenario, peer, column.metric),
                };
                shown(spread, column.with_range)
            });
            [peer.name().to_owned()].into_iter().chain(figures).collect()
        });
        [head.collect()].into_iter().chain(body).collect()
    }

    /// Tables for a page: a row for each scenario, medians.
    pub(crate) fn markdown(&self) -> String {
        let (idle, loads): (Vec<&Scenario>, Vec<&Scenario>) =
            self.scenarios.iter().partition(|scenario| scenario.action == Action::Idle);
        let mut text = String::new();
        let median =
            |scenario: &Scenario, peer, metric| self.spread(scenario, peer, metric).map(|it| it.median);
        if !loads.is_empty() {
            text += "CPU µs per request of the proxy (ratio to HAProxy):\n\n";
            let proxies: Vec<Peer> =
                self.peers.iter().copied().filter(|&peer| peer != Peer::Direct).collect();
            text += &self.markdown_table(&loads, &proxies, |scenario, peer| {
                let ratio = self.ratio(scenario, peer, Metric::CpuUs).filter(|_| peer != Peer::Haproxy);
                let ratio = ratio.map(|ratio| format!(" ({:.2})", ratio.median)).unwrap_or_default();
                Some(figure(median(scenario, peer, Metric::CpuUs)?) + &ratio)
            });
            text += "\nRequests per second, p50 / p99 in µs, and connections to the server:\n\n";
            text += &self.markdown_table(&loads, &self.peers, |scenario, peer| {
                let [ops, p50, p99, upstream] =
                    [Metric::OpsPerSecond, Metric::P50Us, Metric::P99Us, Metric::Upstream]
                        .map(|metric| median(scenario, peer, metric));
                Some(format!("{}, {} / {}, {}", figure(ops?), figure(p50?), figure(p99?), figure(upstream?)))
            });
        }
        if !idle.is_empty() {
            text += "\nBytes of resident memory per idle connection, and connections to the server:\n\n";
            text += &self.markdown_table(&idle, &self.peers, |scenario, peer| {
                let bytes = median(scenario, peer, Metric::IdleBytes)?;
                Some(format!("{bytes:.0}, {}", figure(median(scenario, peer, Metric::Upstream)?)))
            });
        }
        text.push('\n');
        for (word, says) in &self.about {
            let _ = writeln!(text, "- {word}: {says}");
        }
        text
    }

    fn markdown_table(
        &self,
        scenarios: &[&Scenario],
        peers: &[Peer],
        cell: impl Fn(&Scenario, Peer) -> Option<String>,
    ) -> String {
        let names: Vec<&str> = peers.iter().map(|peer| peer.name()).collect();
        let mut text = format!("| | {} |\n|---|{}\n", names.join(" | "), "---:|".repeat(peers.len()));
        for scenario in scenarios {
            let cells: Vec<String> = peers
                .iter()
                .map(|&peer| match cell(scenario, peer) {
                    Some(shown) => shown,
                    None if scenario.suits(peer) => "failed".to_owned(),
                    None => "cannot".to_owned(),
                })
                .collect();
            let _ = writeln!(text, "| {} | {} |", scenario.about, cells.join(" | "));
        }
        text
    }

    /// Everything, each round's figures included.
    pub(crate) fn json(&self) -> Value {
        let peer = |scenario: &Scenario, peer: Peer| {
            let rounds: Vec<Value> = self.of(scenario, peer).iter().map(outcome_json).collect();
            let metrics = || {
                let cells = self.of(scenario, peer).iter().flatten();
                cells.flat_map(|cell| cell.keys().copied()).collect::<std::collections::BTreeSet<_>>()
            };
            let spreads: BTreeMap<Metric, Option<Spread>> =
                metrics().into_iter().map(|metric| (metric, self.spread(scenario, peer, metric))).collect();
            let ratios: BTreeMap<Metric, Option<Spread>> =
                metrics().into_iter().map(|metric| (metric, self.ratio(scenario, peer, metric))).collect();
            json!({ "peer": peer, "figures": spreads, "to_haproxy": ratios, "rounds": rounds })
        };
        let scenarios: Vec<Value> = self
            .scenarios
            .iter()
            .map(|scenario| {
                let peers: Vec<Value> = self.peers.iter().map(|&name| peer(scenario, name)).collect();
                json!({ "name": scenario.name, "about": scenario.about, "peers": peers })
            })
            .collect();
        let about: BTreeMap<&str, &String> = self.about.iter().map(|(word, says)| (*word, says)).collect();
        json!({ "about": about, "scenarios": scenarios })
    }
}

struct Column {
    head: &'static str,
    metric: Metric,
    to_reference: bool,
    with_range: bool,
}

fn columns(scenario: &Scenario) -> Vec<Column> {
    let column = |head, metric, to_reference, with_range| Column { head, metric, to_reference, with_range };
    if scenario.action == Action::Idle {
        return vec![
            column("bytes/client", Metric::IdleBytes, false, true),
            column("/ haproxy", Metric::IdleBytes, true, true),
            column("redis bytes/client", Metric::RedisIdleBytes, false, true),
            column("upstream", Metric::Upstream, false, false),
        ];
    }
    vec![
        column("CPU us/req", Metric::CpuUs, false, true),
        column("/ haproxy", Metric::CpuUs, true, true),
        column("ops/s", Metric::OpsPerSecond, false, true),
        column("/ haproxy", Metric::OpsPerSecond, true, true),
        column("p50 us", Metric::P50Us, false, false),
        column("p99 us", Metric::P99Us, false, false),
        column("redis us/req", Metric::RedisCpuUs, false, false),
        column("load us/req", Metric::GeneratorCpuUs, false, false),
        column("upstream", Metric::Upstream, false, false),
    ]
}

fn shown(spread: Option<Spread>, with_range: bool) -> String {
    match spread {
        None => "-".to_owned(),
        Some(Spread { median, min, max }) if with_range => {
            format!("{} ({}..{})", figure(median), figure(min), figure(max))
        }
        Some(Spread { median, .. }) => figure(median),
    }
}

/// Three digits or more, none that mean nothing.
fn figure(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The first column to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let _ = write!(text, "  {:<1$}", row[0], width(0));
        for (column, cell) in row.iter().enumerate().skip(1) {
            let _ = write!(text, "  {cell:>0$}", width(column));
        }
        text.push('\n');
    }
    text
}

fn outcome_json(outcome: &Outcome) -> Value {
    match outcome {
        Ok(cell) => json!(cell),
        Err(error) => json!({ "error": error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::SCENARIOS;

    const GET: &Scenario = &SCENARIOS[0];

    fn report(cells: &[(Peer, &[Option<f64>])]) -> Report<'static> {
        let peers = cells.iter().map(|(peer, _)| *peer).collect();
        let mut report = Report::new(vec![("seed", "1".to_owned())], vec![GET], peers);
        for (peer, rounds) in cells {
            for round in *rounds {
                let outcome = round.map(|cpu_us| Cell::from([(Metric::CpuUs, cpu_us)]));
                report.add(GET, *peer, outcome.ok_or_else(|| "it fell over".to_owned()));
            }
        }
        report
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![5.0]), Some(Spread { median: 5.0, min: 5.0, max: 5.0 }));
        assert_eq!(Spread::of(vec![9.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 9.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 9.0]), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
    }

    #[test]
    fn ratios_are_taken_within_each_round() {
        let report = report(&[
            (Peer::Haproxy, &[Some(10.0), Some(20.0), Some(40.0)]),
            (Peer::Pointsman, &[Some(5.0), Some(12.0), Some(16.0)]),
        ]);
        let ratio = report.ratio(GET, Peer::Pointsman, Metric::CpuUs);
        assert_eq!(ratio, Some(Spread { median: 0.5, min: 0.4, max: 0.6 }));
        assert_eq!(report.ratio(GET, Peer::Haproxy, Metric::CpuUs).unwrap().median, 1.0);
    }

    #[test]
    fn a_failed_round_is_left_out_of_figures_and_pairs_but_named() {
        let report = report(&[
            (Peer::Haproxy, &[None, Some(20.0), Some(40.0)]),
            (Peer::Pointsman, &[Some(5.0), Some(10.0), None]),
        ]);
        assert_eq!(report.spread(GET, Peer::Pointsman, Metric::CpuUs).unwrap().median, 7.5);
        let ratio = report.ratio(GET, Peer::Pointsman, Metric::CpuUs);
        assert_eq!(ratio, Some(Spread { median: 0.5, min: 0.5, max: 0.5 }));
        assert_eq!(report.failures(), 2);
        assert!(
            report.text().contains("pointsman failed in 1 of 3 rounds: it fell over"),
            "{}",
            report.text()
        );
        assert_eq!(report.json()["scenarios"][0]["peers"][1]["rounds"][2]["error"], "it fell over");
    }

    #[test]
    fn without_the_reference_there_are_figures_but_no_ratios() {
        let report = report(&[(Peer::Pointsman, &[Some(5.0)])]);
        assert_eq!(report.ratio(GET, Peer::Pointsman, Metric::CpuUs), None);
        assert!(report.text().contains("5 (5..5)"), "{}", report.text());
    }

    #[test]
    fn a_table_is_aligned() {
        let rows = [["peer", "ops"], ["a", "12345"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "  peer    ops\n  a     12345\n");
    }

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(
            [0.5, 3.17159, 12.345, 99.96, 123.4, 85_300.4, 50.0].map(figure),
            ["0.50", "3.17", "12.3", "100.0", "123", "85300", "50"]
        );
    }

    #[test]
    fn markdown_has_a_row_for_each_scenario_with_the_ratio_to_the_reference() {
        let report = report(&[(Peer::Haproxy, &[Some(10.0)]), (Peer::Pointsman, &[Some(5.5)])]);
        let text = report.markdown();
        assert!(text.contains("| | haproxy | pointsman |\n|---|---:|---:|\n"), "{text}");
        assert!(text.contains("| GET, 64-byte values, 50 clients | 10 | 5.50 (0.55) |"), "{text}");
    }
}
