//! From the figures of all rounds to what people and programs read.
use crate::figures::Figures;
use crate::play::Trouble;
use crate::row::{Figure, GUARD_LOST_MAX, Lost, Protection, Row};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What a round gave, or why it could not be played.
pub(crate) type Outcome = Result<Figures, Trouble>;

const HEAD: [&str; 11] = [
    "fault",
    "with",
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

/// What writes that were in flight may get.
pub(crate) const IN_FLIGHT: [&str; 2] = ["UNCERTAIN", "NOTDURABLE"];
/// A stall that is longer is worth a word.
const STALL_MS_MAX: u64 = 30;

/// All rounds of all rows that were played.
#[derive(Debug)]
pub(crate) struct Report {
    rows: &'static [Row],
    pub(crate) about: Vec<(&'static str, String)>,
    rounds: BTreeMap<(usize, Protection), Vec<Outcome>>,
    again: Vec<String>,
}

impl Report {
    /// Without rounds yet.
    pub(crate) fn of(rows: &'static [Row]) -> Self {
        Self { rows, about: vec![], rounds: BTreeMap::new(), again: vec![] }
    }

    /// Adds a round of the row of that index, and why it was played once more, if it was.
    pub(crate) fn add(&mut self, row: usize, with: Protection, outcome: Outcome, again: Option<String>) {
        self.rounds.entry((row, with)).or_default().push(outcome);
        self.again.extend(again.map(|why| format!("{} ({with}): {why}", self.rows[row].name)));
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.rounds.iter().map(|(&(row, with), rounds)| Line { row: &self.rows[row], with, rounds })
    }

    /// What is broken: rounds that could not be played, and asserted figures that were not reached.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.lines().flat_map(|line| line.failures()).collect()
    }

    /// An aligned table for a terminal.
    pub(crate) fn text(&self) -> String {
        let rows: Vec<Vec<String>> = [HEAD.map(String::from).to_vec()]
            .into_iter()
            .chain(self.lines().map(|line| line.cells()))
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
        for line in self.lines() {
            let _ = writeln!(text, "| {} |", line.cells().join(" | "));
        }
        text + &self.notes("- ")
    }

    fn notes(&self, bullet: &str) -> String {
        let about = self.about.iter().map(|(word, says)| (*word, says));
        let again = self.again.iter().map(|why| ("played once more", why));
        let notes = about.chain(again).map(|(word, says)| format!("{bullet}{word}: {says}\n"));
        format!("\n{}", notes.collect::<String>())
    }

    /// Everything, each round included.
    pub(crate) fn json(&self) -> Value {
        let about: BTreeMap<_, _> = self.about.iter().map(|(word, says)| (*word, says)).collect();
        json!({"about": about, "again": self.again, "rows": self.lines().map(|line| line.json()).collect::<Vec<_>>()})
    }
}

/// A line of the table: all rounds of a row with one protection.
struct Line<'a> {
    row: &'a Row,
    with: Protection,
    rounds: &'a [Outcome],
}

impl Line<'_> {
    fn name(&self) -> String {
        format!("{} ({})", self.row.name, self.with)
    }

    fn misses(&self, figures: &Figures) -> BTreeSet<Figure> {
        figures.misses(&self.row.targets(self.with))
    }

    /// The figures that some round has missed.
    fn missed(&self) -> BTreeSet<Figure> {
        self.rounds.iter().flatten().flat_map(|figures| self.misses(figures)).collect()
    }

    fn failures(&self) -> Vec<String> {
        let of_round = |outcome: &Outcome| match outcome {
            Err(trouble) => vec![format!("{}: {trouble}", self.name())],
            Ok(figures) => {
                let broken = figures.broken(&self.row.targets(self.with)).into_iter();
                broken.map(|figure| format!("{}: {figure}: {}", self.name(), gist(figures))).collect()
            }
        };
        self.rounds.iter().flat_map(of_round).collect()
    }

    fn json(&self) -> Value {
        let round = |outcome: &Outcome| match outcome {
            Ok(figures) => {
                let misses: Vec<_> = self.misses(figures).iter().map(Figure::to_string).collect();
                json!({"figures": figures.json(), "misses": misses})
            }
            Err(trouble) => json!({"error": trouble.to_string()}),
        };
        let targets = self.row.targets(self.with);
        json!({"row": self.row.name, "about": self.row.about, "with": self.with.to_string(),
            "rounds": self.rounds.iter().map(round).collect::<Vec<_>>(),
            "target": {"lost": self.lost_max(), "dual": 0, "errors": targets.errors.to_string(),
                "pause_of_writes_ms": targets.pause_of_writes.to_string(),
                "pause_of_reads_ms": targets.pause_of_reads.to_string()}})
    }

    fn lost_max(&self) -> String {
        match self.row.targets(self.with).lost {
            Lost::None => "0".into(),
            Lost::UntilNoticed => (GUARD_LOST_MAX * self.row.proxies).to_string(),
            Lost::UntilPromotion => "until T".into(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let good: Vec<&Figures> = self.rounds.iter().flatten().collect();
        let mut cells = vec![self.row.name.to_owned(), self.with.to_string()];
        if good.is_empty() {
            cells.resize(HEAD.len() - 1, "–".into());
            cells.push(format!("failed in all of {}", self.rounds.len()));
            return cells;
        }
        let targets = self.row.targets(self.with);
        // A row with two strikes shows both, one after the other.
        let strikes = good.iter().map(|f| f.pauses.len()).max().unwrap_or_default();
        let each = |cell: &dyn Fn(usize) -> String| (0..strikes).map(cell).collect::<Vec<_>>().join("; ");
        let pauses = |k: usize| good.iter().filter_map(move |f| f.pauses.get(k));
        cells.extend([
            good.iter().map(|f| f.acknowledged).sum::<u64>().to_string(),
            self.lost(&good),
            spread(good.iter().map(|f| f.dual as i64)),
            format!("{} ({})", errors(&good), targets.errors),
            each(&|k| {
                let (writes, reads) = (pauses(k).map(|p| p.writes as i64), pauses(k).map(|p| p.reads as i64));
                format!("{}, {}", spread(writes), spread(reads))
            }),
            each(&|k| spread(pauses(k).filter_map(|p| p.promotion).map(|ms| ms as i64))),
            each(&|k| spread(pauses(k).filter_map(|p| p.excess()))),
            one_or_both(targets.pause_of_writes.to_string(), targets.pause_of_reads.to_string()),
            self.verdict(&good),
        ]);
        cells
    }

    fn lost(&self, good: &[&Figures]) -> String {
        let lost = format!("{} ({})", spread(good.iter().map(|f| f.lost as i64)), self.lost_max());
        let direct = || good.iter().filter_map(|f| f.direct);
        let acknowledged: u64 = direct().map(|(_, acknowledged)| acknowledged).sum();
        if acknowledged == 0 {
            return lost;
        }
        format!("{lost}; direct {} of {acknowledged}", spread(direct().map(|(lost, _)| lost as i64)))
    }

    fn verdict(&self, good: &[&Figures]) -> String {
        let words: Vec<String> = self.missed().iter().map(Figure::to_string).collect();
        let mut verdict =
            if words.is_empty() { "reached".into() } else { format!("misses {}", words.join(", ")) };
        let failed = self.rounds.len() - good.len();
        if failed > 0 {
            let _ = write!(verdict, "; failed in {failed} of {}", self.rounds.len());
        }
        if let Some(stall) = good.iter().map(|f| f.stall).max().filter(|stall| *stall > STALL_MS_MAX) {
            let _ = write!(verdict, "; the machine stalled for {stall} ms");
        }
        if let Some(ready) = good.iter().filter_map(|f| f.ready).max() {
            let _ = write!(verdict, "; ready {ready} ms after the proof");
        }
        verdict
    }
}

fn one_or_both(of_writes: String, of_reads: String) -> String {
    if of_writes == of_reads { of_writes } else { format!("{of_writes}, {of_reads}") }
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
    if let Some((lost, acknowledged)) = figures.direct {
        let _ = write!(said, ", direct clients lost {lost} of {acknowledged}");
    }
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
        let of = if IN_FLIGHT.contains(kind) && in_flight > 0 {
            format!(" of {in_flight}")
        } else {
            String::new()
        };
        format!("{kind} {writes}{of}{reads}")
    };
    let said: Vec<String> = sums.iter().map(one).collect();
    if said.is_empty() { "0".into() } else { said.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::StrikePause;
    use crate::row::ROWS;
    use std::io;

    fn index(row: &str) -> usize {
        ROWS.iter().position(|of_table| of_table.name == row).expect("it is in the table")
    }

    fn good() -> Figures {
        let pauses = vec![StrikePause { writes: 1450, reads: 1440, promotion: Some(1400) }];
        Figures { acknowledged: 100, loads: 1, pauses, ..Figures::default() }
    }

    fn report(row: &str, rounds: Vec<Outcome>) -> Report {
        let mut report = Report::of(ROWS);
        rounds.into_iter().for_each(|outcome| report.add(index(row), Protection::Default, outcome, None));
        report
    }

    #[test]
    fn a_round_that_could_not_be_played_and_a_broken_figure_are_failures() {
        let lossy = Figures { lost: 3, ..good() };
        let report =
            report("F1", vec![Ok(good()), Err(Trouble::Stage(io::Error::other("no redis"))), Ok(lossy)]);
        let failures = report.failures();
        assert_eq!(failures.len(), 2);
        assert_eq!(failures[0], "F1 (default): could not be played: no redis");
        assert!(failures[1].starts_with("F1 (default): lost: acknowledged 100, lost 3"), "{}", failures[1]);
        assert!(report.text().contains("misses lost; failed in 1 of 3"), "{}", report.text());
    }

    #[test]
    fn a_pause_that_is_too_long_is_said_and_is_no_failure() {
        let slow = StrikePause { writes: 1700, reads: 1440, promotion: Some(1400) };
        let report = report("F1", vec![Ok(Figures { pauses: vec![slow], ..good() })]);
        assert!(report.failures().is_empty());
        assert!(report.markdown().contains("| misses pause |"), "{}", report.markdown());
    }

    #[test]
    fn each_protection_has_a_line_of_its_own() {
        let mut report = report("F3", vec![Ok(Figures { lost: 80, ..good() })]);
        let unguarded = Figures { lost: 390, direct: Some((7, 9)), ..good() };
        report.add(index("F3"), Protection::NoGuard, Ok(unguarded), None);
        let durable = Figures { lost: 1, ..good() };
        report.add(index("F3"), Protection::Durable, Ok(durable), Some("no votes".into()));
        let text = report.markdown();
        for cells in
            ["| F3 | default | 100 | 80 (87) |", "| F3 | no-guard | 100 | 390 (until T); direct 7 of 9 |"]
        {
            assert!(text.contains(cells), "{text}");
        }
        assert!(text.contains("| F3 | durable | 100 | 1 (0) |"), "{text}");
        assert!(text.contains("- played once more: F3 (durable): no votes"), "{text}");
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
