//! Time as an argument: the machines of this crate never read a clock.
use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;

/// A moment, in microseconds of a monotonic clock that counts suspension (`CLOCK_BOOTTIME` on Linux). All threads
/// of one process read the same clock, so moments can be compared across threads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Now(u64);

impl Now {
    /// The earliest moment.
    pub const ZERO: Now = Now(0);
    /// The latest moment: never.
    pub const NEVER: Now = Now(u64::MAX);

    /// The moment `us` microseconds after the clock's zero.
    pub const fn from_micros(us: u64) -> Now {
        Now(us)
    }

    /// The moment `ms` milliseconds after the clock's zero.
    pub const fn from_millis(ms: u64) -> Now {
        Now(ms * 1000)
    }

    /// Microseconds since the clock's zero.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is before.
    pub const fn since(self, earlier: Now) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Now {
    type Output = Now;
    fn add(self, d: Duration) -> Now {
        Now(self.0.saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Now {
    type Output = Now;
    fn sub(self, d: Duration) -> Now {
        Now(self.0.saturating_sub(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
