//! Whether the proxy's memory and open files stay as they are: what it has after a minute, and at the end.
use std::fs;
use std::time::Duration;

/// When the figures are taken that the end is compared with: by then every kind of fault has usually come once.
const SETTLED: Duration = Duration::from_secs(60);
/// A run that ends sooner than this after that says nothing.
const COMPARED: Duration = Duration::from_secs(60);
/// More than this is growth: allocators keep a little after each peak, and a switch opens a few connections at once.
const BYTES_MORE_MAX: u64 = 8 << 20;
const FILES_MORE_MAX: u64 = 64;

/// What a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Resident memory, in bytes.
    pub bytes: u64,
    /// Open file descriptors.
    pub files: u64,
}

impl Held {
    /// What the process has now; `None` where the system does not tell (proc(5)).
    pub fn of(pid: u32) -> Option<Held> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = resident.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
        Some(Held { bytes: kib << 10, files })
    }
}

/// What it had in the course of a run.
#[derive(Debug, Clone, Default)]
pub struct Growth {
    settled: Option<(Duration, Held)>,
    last: Option<(Duration, Held)>,
    most: Option<u64>,
}

impl Growth {
    /// Takes note of what it has now.
    pub fn note(&mut self, at: Duration, held: Held) {
        if self.settled.is_none() && at >= SETTLED {
            self.settled = Some((at, held));
        }
        self.last = Some((at, held));
        self.most = self.most.max(Some(held.bytes));
    }

    /// Whether it has stayed flat, as far as this run can say.
    pub fn is_flat(&self) -> bool {
        let (Some((from, before)), Some((to, after))) = (self.settled, self.last) else { return true };
        to < from + COMPARED
            || after.bytes <= before.bytes + BYTES_MORE_MAX && after.files <= before.files + FILES_MORE_MAX
    }

    /// One line for the summary; `None` if nothing is known.
    pub fn line(&self) -> Option<String> {
        let (_, last) = self.last?;
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let most = mib(self.most.unwrap_or(last.bytes));
        let end = format!("{} at the end, at most {most}; {} open files", mib(last.bytes), last.files);
        Some(match self.settled {
            Some((at, held)) => format!(
                "memory of the proxy: {} after {} s, {end} ({} then){}",
                mib(held.bytes),
                at.as_secs(),
                held.files,
                if self.is_flat() { "" } else { ": IT GREW" }
            ),
            None => format!("memory of the proxy: {end}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(settled: Held, end: Held, at: u64) -> Growth {
        let mut growth = Growth::default();
        growth.note(Duration::from_secs(1), Held { bytes: 1 << 20, files: 10 });
        growth.note(SETTLED, settled);
        growth.note(Duration::from_secs(at), end);
        growth
    }

    #[test]
    fn memory_or_files_that_grow_after_the_first_minute_are_told() {
        let (settled, grown) = (Held { bytes: 20 << 20, files: 40 }, Held { bytes: 29 << 20, files: 40 });
        assert!(!after(settled, grown, 600).is_flat());
        assert!(after(settled, grown, 600).line().unwrap().contains("29.0 MiB at the end"));
        assert!(!after(settled, Held { files: 140, ..settled }, 600).is_flat());
        assert!(after(settled, Held { bytes: 27 << 20, files: 60 }, 600).is_flat());
    }

    #[test]
    fn a_short_run_says_nothing_of_growth() {
        let (settled, grown) = (Held { bytes: 20 << 20, files: 40 }, Held { bytes: 40 << 20, files: 40 });
        assert!(after(settled, grown, 90).is_flat());
    }

    #[test]
    fn a_process_tells_what_it_has() {
        if cfg!(target_os = "linux") {
            let held = Held::of(std::process::id()).unwrap();
            assert!(held.bytes > 100 << 10 && held.files > 2, "{held:?}");
        }
    }
}
