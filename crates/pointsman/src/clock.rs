//! The clock that all threads read.
use pointsman_core::Now;
use rustix::time::{ClockId, clock_gettime};

/// The present moment, on a clock that never goes back and that counts the time the machine was suspended, so that
/// what was proven before a suspension is not taken for fresh after it.
pub fn now() -> Now {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let t = clock_gettime(clock);
    // The kernel's times since boot are not negative.
    Now::from_micros(t.tv_sec.unsigned_abs() * 1_000_000 + t.tv_nsec.unsigned_abs() / 1000)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_advances() {
        let before = super::now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(super::now().since(before) >= std::time::Duration::from_millis(2));
    }
}
