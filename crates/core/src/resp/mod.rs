//! RESP, the protocol of Redis: framing of requests and replies, views into them, and what Pointsman itself says.
//!
//! Facts from Redis' `networking.c` (`processMultibulkBuffer`, `processInlineBuffer`) and the RESP3 specification.
pub mod frame;
pub mod inline;
pub mod reply;
pub mod scan;

/// The protocol version that a session speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Proto {
    /// RESP2, as every connection begins.
    #[default]
    Resp2,
    /// RESP3, after `HELLO 3`.
    Resp3,
}

/// Redis' `string2ll`: the only spellings of integers that it takes in a header. No sign but `-`, no leading zeros.
pub fn parse_i64(s: &[u8]) -> Option<i64> {
    let (negative, digits) = match s {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, s),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut v: i64 = 0;
    for d in digits {
        if !d.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(d - b'0');
        v = v.checked_mul(10)?;
        v = if negative { v.checked_sub(digit)? } else { v.checked_add(digit)? };
    }
    Some(v)
}

/// The integer of a header and how many bytes it takes, its line's end included. `bytes` begins behind the type byte.
/// `None` if the header is not a plain non-negative number that is all there: then the slow way says what it is.
#[inline]
pub(crate) fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    // As many digits as cannot overflow; longer numbers go the slow way.
    const DIGITS: usize = 9;
    let mut n = 0;
    for (i, b) in bytes.iter().take(DIGITS + 1).enumerate() {
        match b {
            b'0'..=b'9' if i == 0 || n > 0 => n = n * 10 + usize::from(b - b'0'),
            b'\r' if i > 0 && i + 1 < bytes.len() && bytes[i + 1] == b'\n' => return Some((n, i + 2)),
            _ => return None,
        }
    }
    None
}
