//! From the figures of all rounds to what people and programs read.
use crate::figures::Figures;
use crate::row::{Figure, Row};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What a round gave, or why it could not be played.
pub(crate) type Outcome = Result<Figures, String>;

const HEAD: [&str; 10] = [
    "fault",
    "acknowledged",
    "lost (target)",
    "dual",
    "errors (target)",
    "pause of writes, reads, ms",
    "T, ms",
    "pause − T, ms",
    "target of the pause, ms",
    "verdict",
];

/// A stall that is longer is worth a word.
const STALL_MS_MAX: u64 = 30;

/// All rounds of all rows that were played.
#[derive(Debug)]
pub(crate) struct Report {
    rows: &'static [Row],
    pub(crate) about: Vec<(&'static str, String)>,
    rounds: BTreeMap<usize, Vec<Outcome>>,
}

impl Report {
    /// Without rounds yet.
    pub(crate) fn of(rows: &'static [Row]) -> Self {
        Self { rows, about: vec![], rounds: BTreeMap::new() }
    }

    /// Adds a round of the row of that index.
    pub(crate) fn add(&mut self, row: usize, outcome: Outcome) {
        self.rounds.entry(row).or_default().push(outcome);
    }

    /// What is broken: rounds that could not be played, and figures that were reached before and now are not.
    pub(crate) fn failures(&self) -> Vec<String> {
        let of_row = |(&i, rounds): (&usize, &Vec<Outcome>)| {
            let row = &self.rows[i];
            let of_round = move |outcome: &Outcome| match outcome {
                Err(error) => vec![format!("{}: {error}", row.name)],
                Ok(figures) => {
                    let broken = figures
                        .misses(row)
                        .into_iter()
                        .filter(|f| f.is_asserted() && !row.not_yet.contains(f));
                    broken.map(|figure| format!("{}: {figure}: {}", row.name, gist(figures))).collect()
                }
            };
            rounds.iter().flat_map(of_round).collect::<Vec<_>>()
        };
        self.rounds.iter().flat_map(of_row).collect()
    }

    /// What is marked as not reached yet, and was reached in every round.
    pub(crate) fn surprises(&self) -> Vec<String> {
        let of_row = |(&i, rounds): (&usize, &Vec<Outcome>)| {
            let (row, missed) = (&self.rows[i], missed(&self.rows[i], rounds));
            let reached: Vec<_> =
                row.not_yet.iter().filter(|f| !missed.contains(f)).map(Figure::to_string).collect();
            (!reached.is_empty()).then(|| format!("{}: {}", row.name, reached.join(", ")))
        };
        self.rounds.iter().filter_map(of_row).collect()
    }

    /// An aligned table for a terminal.
    pub(crate) fn text(&self) -> String {
        let rows: Vec<Vec<String>> = [HEAD.map(String::from).to_vec()]
            .into_iter()
            .chain(self.rounds.iter().map(|(&i, rounds)| cells(&self.rows[i], rounds)))
            .collect();
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
        let mut text = String::new();
        for row in rows {
            let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let _ = writeln!(text, "{}", padded.collect::<Vec<_>>().join("  ").trim_end());
        }
        text + &self.notes("")
    }

    /// The same for a page.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("| {} |\n|{}\n", HEAD.join(" | "), "---|".repeat(HEAD.len()));
        for (&i, rounds) in &self.rounds {
            let _ = writeln!(text, "| {} |", cells(&self.rows[i], rounds).join(" | "));
        }
        text + &self.notes("- ")
    }

    fn notes(&self, bullet: &str) -> String {
        let about = self.about.iter().map(|(word, says)| format!("{bullet}{word}: {says}\n"));
        format!("\n{}", about.collect::<String>())
    }

    /// Everything, each round included.
    pub(crate) fn json(&self) -> Value {
        let round = |row: &Row, outcome: &Outcome| match outcome {
            Ok(figures) => {
                let misses: Vec<_> = figures.misses(row).iter().map(Figure::to_string).collect();
                json!({"figures": figures.json(), "misses": misses})
            }
            Err(error) => json!({"error": error}),
        };
        let rows = self.rounds.iter().map(|(&i, rounds)| {
            let row = &self.rows[i];
            let rounds: Vec<Value> = rounds.iter().map(|outcome| round(row, outcome)).collect();
            let not_yet: Vec<_> = row.not_yet.iter().map(Figure::to_string).collect();
            json!({"row": row.name, "about": row.about, "not_yet": not_yet, "rounds": rounds,
                "target": {"lost": row.lost_max, "dual": 0, "errors": row.errors.to_string(),
                    "pause_ms": row.pause.to_string()}})
        });
        let about: BTreeMap<_, _> = self.about.iter().map(|(word, says)| (*word, says)).collect();
        json!({"about": about, "rows": rows.collect::<Vec<_>>()})
    }
}

/// One round in a few words.
pub(crate) fn gist(figures: &Figures) -> String {
    let pauses = figures.pauses.iter().map(|pause| {
        let excess = pause.excess().map(|excess| format!(" (T {excess:+})")).unwrap_or_default();
        format!("{}/{} ms{excess}", pause.writes, pause.reads)
    });
    let mut said = format!(
        "acknowledged {}, lost {}, dual {}, errors {}, pause {}",
        figures.acknowledged,
        figures.lost,
        figures.dual,
        errors(&[figures]),
        pauses.collect::<Vec<_>>().join(", ")
    );
    if figures.promotions > figures.pauses.len() as u64 {
        let _ = write!(said, ", {} promotions", figures.promotions);
    }
    if figures.stall > STALL_MS_MAX {
        let _ = write!(said, ", the machine stalled for {} ms", figures.stall);
    }
    if let Some(ready) = figures.ready {
        let _ = write!(said, ", ready after {ready} ms");
    }
    said
}

/// The figures that some round has missed.
fn missed(row: &Row, rounds: &[Outcome]) -> BTreeSet<Figure> {
    rounds.iter().flatten().flat_map(|figures| figures.misses(row)).collect()
}

fn cells(row: &Row, rounds: &[Outcome]) -> Vec<String> {
    let good: Vec<&Figures> = rounds.iter().flatten().collect();
    let name = format!("{} {}", row.name, row.about);
    let failed = rounds.len() - good.len();
    if good.is_empty() {
        let mut cells = vec![name];
        cells.resize(HEAD.len() - 1, "–".into());
        cells.push(format!("failed in all of {failed}"));
        return cells;
    }
    let all = |figure: &dyn Fn(&Figures) -> u64| spread(good.iter().map(|f| figure(f) as i64));
    // A row with two strikes shows both, one after the other.
    let strikes = good.iter().map(|f| f.pauses.len()).max().unwrap_or_default();
    let each = |cell: &dyn Fn(usize) -> String| (0..strikes).map(cell).collect::<Vec<_>>().join("; ");
    let pauses = |k: usize| good.iter().filter_map(move |f| f.pauses.get(k));
    let lost_max = if row.lost_max == 0 { "0".to_owned() } else { format!("{}", row.lost_max) };
    let mut verdict = verdict(row, rounds);
    if failed > 0 {
        let _ = write!(verdict, "; failed in {failed} of {}", rounds.len());
    }
    if let Some(stall) = good.iter().map(|f| f.stall).max().filter(|stall| *stall > STALL_MS_MAX) {
        let _ = write!(verdict, "; the machine stalled for {stall} ms");
    }
    if let Some(ready) = good.iter().filter_map(|f| f.ready).max() {
        let _ = write!(verdict, "; ready {ready} ms after the proof");
    }
    vec![
        name,
        good.iter().map(|f| f.acknowledged).sum::<u64>().to_string(),
        format!("{} ({lost_max})", all(&|f| f.lost)),
        all(&|f| f.dual),
        format!("{} ({})", errors(&good), row.errors),
        each(&|k| {
            let (writes, reads) = (pauses(k).map(|p| p.writes as i64), pauses(k).map(|p| p.reads as i64));
            format!("{}, {}", spread(writes), spread(reads))
        }),
        each(&|k| spread(pauses(k).filter_map(|p| p.promotion).map(|ms| ms as i64))),
        each(&|k| spread(pauses(k).filter_map(|p| p.excess()))),
        row.pause.to_string(),
        verdict,
    ]
}

fn verdict(row: &Row, rounds: &[Outcome]) -> String {
    let missed = missed(row, rounds);
    let words: Vec<String> = missed
        .iter()
        .map(|figure| {
            let known = if row.not_yet.contains(figure) || !figure.is_asserted() { " (not yet)" } else { "" };
            format!("{figure}{known}")
        })
        .collect();
    if words.is_empty() { "reached".into() } else { format!("misses {}", words.join(", ")) }
}

/// The median and the range of some figures.
fn spread(figures: impl Iterator<Item = i64>) -> String {
    let mut figures: Vec<i64> = figures.collect();
    figures.sort_unstable();
    match figures[..] {
        [] => "–".into(),
        [first, .., last] if first != last => format!("{} ({first}…{last})", figures[figures.len() / 2]),
        [first, ..] => first.to_string(),
    }
}

/// The errors of some rounds together: of writes, and after a plus of reads.
fn errors(rounds: &[&Figures]) -> String {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (kind, &(writes, reads)) in rounds.iter().flat_map(|figures| &figures.errors) {
        let sum = sums.entry(kind).or_default();
        *sum = (sum.0 + writes, sum.1 + reads);
    }
    let in_flight: u64 = rounds.iter().map(|figures| figures.in_flight).sum();
    let one = |(kind, (writes, reads)): (&&str, &(u64, u64))| {
        let reads = if *reads == 0 { String::new() } else { format!(" + {reads} reads") };
        let of = if **kind == *"UNCERTAIN" { format!(" of {in_flight}") } else { String::new() };
        format!("{kind} {writes}{of}{reads}")
    };
    let said: Vec<String> = sums.iter().map(one).collect();
    if said.is_empty() { "0".into() } else { said.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::StrikePause;
    use crate::row::{Errors, Fault, Meanwhile, Pause};

    const F1: Row = Row {
        name: "F1",
        about: "",
        fault: Fault::Kill,
        meanwhile: Meanwhile::Nothing,
        lost_max: 0,
        errors: Errors::InFlight,
        pause: Pause::AfterPromotion(100),
        not_yet: &[],
    };
    /// The second is marked.
    const MARKED: &[Row] = &[F1, Row { name: "F3", lost_max: 87, not_yet: &[Figure::Lost], ..F1 }];

    fn index(name: &str) -> usize {
        MARKED.iter().position(|row| row.name == name).expect("it is in the table")
    }

    fn good() -> Figures {
        let pauses = vec![StrikePause { writes: 1450, reads: 1440, promotion: Some(1400) }];
        Figures { acknowledged: 100, pauses, ..Figures::default() }
    }

    fn report(row: &str, rounds: Vec<Outcome>) -> Report {
        let mut report = Report::of(MARKED);
        rounds.into_iter().for_each(|outcome| report.add(index(row), outcome));
        report
    }

    #[test]
    fn a_round_that_could_not_be_played_and_a_broken_figure_are_failures() {
        let lossy = Figures { lost: 3, ..good() };
        let report = report("F1", vec![Ok(good()), Err("no redis".into()), Ok(lossy)]);
        let failures = report.failures();
        assert_eq!(failures.len(), 2);
        assert_eq!(failures[0], "F1: no redis");
        assert!(failures[1].starts_with("F1: lost: acknowledged 100, lost 3"), "{}", failures[1]);
        assert!(report.text().contains("misses lost; failed in 1 of 3"), "{}", report.text());
    }

    #[test]
    fn only_what_is_marked_as_not_reached_yet_may_be_missed() {
        let lossy = Figures { lost: 6000, dual: 5500, ..good() };
        let report = report("F3", vec![Ok(lossy)]);
        assert_eq!(report.failures().len(), 1, "{:?}", report.failures());
        assert!(report.failures()[0].starts_with("F3: dual:"));
        assert!(report.markdown().contains("| 6000 (87) | 5500 |"), "{}", report.markdown());
        assert!(report.markdown().contains("misses lost (not yet), dual"));
    }

    #[test]
    fn what_is_reached_against_expectation_is_said() {
        assert_eq!(report("F3", vec![Ok(good())]).surprises(), ["F3: lost"]);
        assert!(report("F1", vec![Ok(good())]).surprises().is_empty());
    }

    #[test]
    fn errors_are_counted_against_what_was_in_flight() {
        let errors_of = [("UNCERTAIN".to_owned(), (2, 0)), ("closed".to_owned(), (1, 4))].into();
        let figures = Figures { errors: errors_of, in_flight: 8, ..good() };
        assert_eq!(errors(&[&figures, &figures]), "UNCERTAIN 4 of 16, closed 2 + 8 reads");
    }

    #[test]
    fn a_spread_is_a_median_and_a_range() {
        assert_eq!(spread([5, 1, 9].into_iter()), "5 (1…9)");
        assert_eq!(spread([4, 4].into_iter()), "4");
        assert_eq!(spread([].into_iter()), "–");
    }
}
