//! The one clock of the process.
use pointsman_core::Now;
use rustix::time::{ClockId, clock_gettime};

/// The moment now, on a clock that counts suspension, so that a resumed machine sees that time has passed.
pub fn now() -> Now {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    // On macOS this one counts suspension.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let t = clock_gettime(CLOCK);
    Now::from_micros(t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1000)
}
