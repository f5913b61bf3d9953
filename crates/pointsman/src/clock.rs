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
