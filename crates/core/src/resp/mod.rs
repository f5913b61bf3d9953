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
