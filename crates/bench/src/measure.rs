//! What a process costs: CPU time, resident memory, and connections to the server. Linux only, from `/proc`.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::time::Duration;

use serde::Serialize;

/// Where CPU times come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CpuSource {
    /// `/proc/PID/task/*/schedstat`: nanoseconds on a CPU, of the threads that live.
    Schedstat,
    /// `/proc/PID/stat`: utime + stime in clock ticks (mostly 10 ms), of all threads that ever were.
    Stat,
}

impl CpuSource {
    /// The finer of the two that this kernel offers.
    pub(crate) fn detect() -> io::Result<Self> {
        // The kernel adds up a thread's time when it switches or ticks; a young process may have seen neither.
        std::thread::sleep(Duration::from_millis(1));
        match threads_ns(std::process::id()) {
            Ok(threads) if threads.values().any(|&ns| ns > 0) => Ok(CpuSource::Schedstat),
            _ => process_ticks(std::process::id()).map(|_| CpuSource::Stat),
        }
    }

    /// What a person is told about it.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            CpuSource::Schedstat => "the sum over all threads of /proc/PID/task/*/schedstat (ns)",
            CpuSource::Stat => "utime + stime of /proc/PID/stat (clock ticks)",
        }
    }
}

/// The CPU time that a process used so far.
pub(crate) struct CpuTime {
    threads_ns: Option<BTreeMap<u32, u64>>,
    ticks: u64,
}

impl CpuTime {
    /// Reads it for the process `pid`.
    pub(crate) fn of(pid: u32, source: CpuSource) -> io::Result<Self> {
        let threads_ns = match source {
            CpuSource::Schedstat => Some(threads_ns(pid)?),
            CpuSource::Stat => None,
        };
        Ok(CpuTime { threads_ns, ticks: process_ticks(pid)? })
    }

    /// The time used since `earlier`. A thread that ended meanwhile took its schedstat along; then the ticks count.
    pub(crate) fn since(&self, earlier: &CpuTime) -> Duration {
        let exact = self.threads_ns.as_ref().zip(earlier.threads_ns.as_ref()).and_then(|(now, before)| {
            let all_live = before.keys().all(|thread| now.contains_key(thread));
            all_live.then(|| now.values().sum::<u64>() - before.values().sum::<u64>())
        });
        match exact {
            Some(ns) => Duration::from_nanos(ns),
            None => {
                let ticks = self.ticks.saturating_sub(earlier.ticks);
                Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
            }
        }
    }
}

fn threads_ns(pid: u32) -> io::Result<BTreeMap<u32, u64>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match fs::read_to_string(entry.path().join("schedstat")) {
            Ok(text) => {
                threads.insert(thread, number(text.split(' ').next(), "schedstat")?);
            }
            Err(error) if error.kind() == ErrorKind::NotFound && entry.path().exists() => return Err(error),
            Err(_) => {} // The thread ended between the listing and the reading.
        }
    }
    Ok(threads)
}

fn process_ticks(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    ticks_in(&text)
}

/// proc_pid_stat(5): utime and stime are fields 14 and 15. Field 2, the name, may hold spaces and parentheses.
fn ticks_in(stat: &str) -> io::Result<u64> {
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let mut fields = after_name.split(' ').skip(11);
    Ok(number(fields.next(), "stat")? + number(fields.next(), "stat")?)
}

/// Resident memory of the process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    // smaps_rollup is exact; the counter behind VmRSS may lag by some pages per CPU.
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .or_else(|_| fs::read_to_string(format!("/proc/{pid}/status")))?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("Rss:").or_else(|| line.strip_prefix("VmRSS:")));
    Ok(number(line.and_then(|line| line.split_whitespace().next()), "resident memory")? * 1024)
}

/// How many established IPv4 connections to `port` the process has.
pub(crate) fn connections_to(pid: u32, port: u16) -> io::Result<usize> {
    let mut owned = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor may be closed between the listing and the reading.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let target = target.to_string_lossy();
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            owned.insert(inode.to_owned());
        }
    }
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    Ok(established_to(&table, port).filter(|inode| owned.contains(*inode)).count())
}

/// The inodes of the established sockets in `/proc/net/tcp` whose remote port is `port` (proc_pid_net(5)).
fn established_to(table: &str, port: u16) -> impl Iterator<Item = &str> {
    let remote = format!(":{port:04X}");
    table.lines().skip(1).filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let matches = fields.get(2)?.ends_with(&remote) && *fields.get(3)? == "01";
        if matches { fields.get(9).copied() } else { None }
    })
}

/// The kernel's release, and the model and number of CPUs.
pub(crate) fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": ")).map_or("CPU", |(_, model)| model);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("Linux {}, {count} x {model}", kernel.trim())
}

fn number(text: Option<&str>, what: &str) -> io::Result<u64> {
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("no {what} in /proc")))
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_finer_source_is_taken_where_the_kernel_has_it() {
        let has_schedstat = fs::exists(format!("/proc/{}/schedstat", std::process::id())).unwrap();
        assert_eq!(CpuSource::detect().unwrap() == CpuSource::Schedstat, has_schedstat);
    }

    #[test]
    fn cpu_time_of_busy_work_is_counted() {
        let own = std::process::id();
        for source in [CpuSource::detect().unwrap(), CpuSource::Stat] {
            let (before, begin) = (CpuTime::of(own, source).unwrap(), Instant::now());
            let mut used = Duration::ZERO;
            let mut sum = 0u64;
            while used < Duration::from_millis(30) && begin.elapsed() < Duration::from_secs(20) {
                (0..100_000).for_each(|n| sum = black_box(sum.wrapping_add(n)));
                used = CpuTime::of(own, source).unwrap().since(&before);
            }
            assert!(used >= Duration::from_millis(30), "{source:?} {used:?}");
        }
    }

    #[test]
    fn ticks_count_when_a_thread_has_ended() {
        let threads = |ids: &[u32]| Some(ids.iter().map(|&id| (id, 500)).collect());
        let before = CpuTime { threads_ns: threads(&[1, 2]), ticks: 10 };
        let after =
            CpuTime { threads_ns: threads(&[1]), ticks: 10 + rustix::param::clock_ticks_per_second() };
        assert_eq!(after.since(&before), Duration::from_secs(1));
    }

    #[test]
    fn a_new_thread_counts_from_its_start() {
        let before = CpuTime { threads_ns: Some([(1, 500)].into()), ticks: 0 };
        let after = CpuTime { threads_ns: Some([(1, 600), (2, 50)].into()), ticks: 0 };
        assert_eq!(after.since(&before), Duration::from_nanos(150));
    }

    #[test]
    fn ticks_are_found_behind_a_strange_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 90 0 0 0 123 77 0 0 20 0 1 0 100 1 1";
        assert_eq!(ticks_in(stat).unwrap(), 200);
        assert!(ticks_in("7 (a) S 1").is_err());
    }

    #[test]
    fn resident_memory_grows_with_what_is_touched() {
        let before = resident_bytes(std::process::id()).unwrap();
        let touched = black_box(vec![1u8; 64 << 20]);
        let grown = resident_bytes(std::process::id()).unwrap() - before;
        assert!(grown > 32 << 20, "{grown} for {}", touched.len());
    }

    #[test]
    fn only_established_connections_of_the_process_to_the_port_count() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = std::process::id();
        assert_eq!(connections_to(own, port).unwrap(), 0);
        let _open: Vec<_> = (0..3).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        assert_eq!(connections_to(own, port).unwrap(), 3);
    }

    #[test]
    fn the_socket_table_is_read_by_remote_port_and_state() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1\n\
             1: 0100007F:9C40 0100007F:18EB 01 00000000:00000000 00:00000000 00000000     0        0 12 1\n\
             2: 0100007F:18EB 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 13 1\n\
             3: 0100007F:9C41 0100007F:18EB 06 00000000:00000000 03:00000000 00000000     0        0 0 3\n";
        assert_eq!(established_to(table, 0x18EB).collect::<Vec<_>>(), ["12"]);
    }
}
