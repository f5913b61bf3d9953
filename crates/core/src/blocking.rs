//! What is left of a command that blocks when its server is lost: the rest of its timeout, and, for `XREAD … $`, what `$`
//! meant when it was first asked.
use crate::command::{Act, Entry};
use crate::resp::frame::Request;
use crate::resp::reply;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// Whether this request waits for something that others do, and can be asked again with another timeout.
pub fn blocks(entry: &Entry, req: Request<'_>) -> bool {
    match entry.act {
        Act::Block => timeout_at(entry, req).is_some(),
        Act::BlockIfAsked => entry.asks_to_block(req.args()),
        _ => false,
    }
}

/// The request with what is left of its timeout after it has waited for `waited`: at least a millisecond, so that the
/// server says in its own words that nothing came. `None`: it has no timeout that can be understood; the server will
/// say so.
pub fn with_rest_of_timeout<'a>(entry: &Entry, req: Request<'a>, waited: Duration) -> Option<Cow<'a, [u8]>> {
    let (at, per_second) = timeout_at(entry, req)?;
    let text = core::str::from_utf8(req.args().nth(at)?).ok()?;
    let timeout = text.parse::<f64>().ok().filter(|t| t.is_finite() && *t >= 0.0)?;
    if timeout == 0.0 {
        // It waits for ever.
        return Some(Cow::Borrowed(req.bytes()));
    }
    let rest = Duration::try_from_secs_f64(timeout / per_second).ok()?;
    let rest = rest.saturating_sub(waited).max(Duration::from_millis(1));
    let text: String = match per_second {
        1.0 => format!("{}.{:03}", rest.as_secs(), rest.subsec_millis()),
        _ => format!("{}", rest.as_millis()),
    };
    let words: Vec<&[u8]> =
        req.args().enumerate().map(|(i, arg)| if i == at { text.as_bytes() } else { arg }).collect();
    let mut bytes = Vec::new();
    reply::request(&mut bytes, &words);
    Some(Cow::Owned(bytes))
}

/// Where a request's timeout stands, and how many of its units make a second.
fn timeout_at(entry: &Entry, req: Request<'_>) -> Option<(usize, f64)> {
    let last = || req.args().count().checked_sub(1);
    match entry.name {
        "BLPOP" | "BRPOP" | "BRPOPLPUSH" | "BLMOVE" | "BZPOPMIN" | "BZPOPMAX" => Some((last()?, 1.0)),
        "BLMPOP" | "BZMPOP" => Some((1, 1.0)),
        "XREAD" | "XREADGROUP" if entry.asks_to_block(req.args()) => {
            // A group may be named as the option is; `asks_to_block` steps over it, and so does this.
            let skip = if entry.name == "XREADGROUP" { 4 } else { 1 };
            let at = req.args().skip(skip).position(|arg| arg.eq_ignore_ascii_case(b"BLOCK"))?;
            Some((skip + at + 1, 1000.0))
        }
        _ => None,
    }
}

/// The streams of an `XREAD` whose id is `$`, in their order.
pub fn newest_wanted<'a>(entry: &Entry, req: Request<'a>) -> impl Iterator<Item = &'a [u8]> {
    let (from, n) = if entry.name == "XREAD" { streams(req) } else { (0, 0) };
    let keys = req.args().skip(from).take(n);
    keys.zip(req.args().skip(from + n)).filter(|(_, id)| *id == b"$").map(|(key, _)| key)
}

/// The request with these ids instead of each `$`, in their order; where one is not known it stays.
pub fn with_ids(entry: &Entry, bytes: Box<[u8]>, ids: &[Option<Box<[u8]>>]) -> Box<[u8]> {
    let req = Request::new(&bytes);
    if entry.name != "XREAD" || ids.is_empty() {
        return bytes;
    }
    let (from, n) = streams(req);
    let mut ids = ids.iter();
    let word = |(i, arg)| {
        let newest = i >= from + n && arg == b"$";
        newest.then(|| ids.next()).flatten().and_then(Option::as_deref).unwrap_or(arg)
    };
    let words: Vec<&[u8]> = req.args().enumerate().map(word).collect();
    let mut out = Vec::new();
    reply::request(&mut out, &words);
    out.into()
}

/// Where the names of an `XREAD`'s streams begin, and how many they are.
fn streams(req: Request<'_>) -> (usize, usize) {
    match req.args().position(|arg| arg.eq_ignore_ascii_case(b"STREAMS")) {
        Some(at) => (at + 1, req.args().count().saturating_sub(at + 1) / 2),
        None => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Lookup, lookup};

    fn request(text: &str) -> Vec<u8> {
        let words: Vec<&str> = text.split(' ').collect();
        let mut bytes = Vec::new();
        reply::request(&mut bytes, &words);
        bytes
    }

    fn entry(bytes: &[u8]) -> &'static Entry {
        match lookup(Request::new(bytes).name(), None) {
            Lookup::Known(entry) => entry,
            other => panic!("{other:?}"),
        }
    }

    fn text(bytes: &[u8]) -> String {
        let words: Vec<_> = Request::new(bytes).args().map(String::from_utf8_lossy).collect();
        words.join(" ")
    }

    fn after(ms: u64, asked: &str) -> Option<String> {
        let bytes = request(asked);
        let rest = with_rest_of_timeout(entry(&bytes), Request::new(&bytes), Duration::from_millis(ms));
        rest.map(|bytes| text(&bytes))
    }

    #[test]
    fn what_is_asked_again_waits_for_the_rest_of_its_time() {
        let all = [
            ("BLPOP a b 5", "BLPOP a b 3.750"),
            ("brpop a 1.25", "brpop a 0.001"),
            ("BLMOVE a b LEFT RIGHT 10", "BLMOVE a b LEFT RIGHT 8.750"),
            ("BLMPOP 2.5 1 a LEFT COUNT 3", "BLMPOP 1.250 1 a LEFT COUNT 3"),
            ("BZPOPMIN z 0", "BZPOPMIN z 0"),
            ("XREAD COUNT 1 BLOCK 2000 STREAMS s 0", "XREAD COUNT 1 BLOCK 750 STREAMS s 0"),
            (
                "XREADGROUP GROUP BLOCK BLOCK BLOCK 2000 STREAMS s >",
                "XREADGROUP GROUP BLOCK BLOCK BLOCK 750 STREAMS s >",
            ),
        ];
        for (asked, rest) in all {
            assert_eq!(after(1250, asked).as_deref(), Some(rest));
        }
        for asked in
            ["BLPOP a x", "BLPOP a -1", "BLPOP a inf", "BLMOVEM a b LEFT RIGHT 1", "XREAD STREAMS s 0"]
        {
            assert_eq!(after(1, asked), None, "{asked}");
        }
    }

    #[test]
    fn the_newest_id_is_resolved_where_it_was_asked_for() {
        let asked = request("XREAD BLOCK 0 STREAMS $ b c $ 1-1 $");
        let (e, req) = (entry(&asked), Request::new(&asked));
        assert_eq!(newest_wanted(e, req).collect::<Vec<_>>(), [b"$", b"c"]);
        let ids = [Some(b"7-0"[..].into()), Some(b"0-0"[..].into())];
        let again = with_ids(e, asked.clone().into(), &ids);
        assert_eq!(text(&again), "XREAD BLOCK 0 STREAMS $ b c 7-0 1-1 0-0");
        assert_eq!(newest_wanted(e, Request::new(&again)).count(), 0);
        let partly = with_ids(e, asked.into(), &[None, Some(b"0-0"[..].into())]);
        assert_eq!(newest_wanted(e, Request::new(&partly)).count(), 1);
    }

    #[test]
    fn only_xread_has_a_newest_id() {
        for asked in ["BLPOP $ 0", "XREADGROUP GROUP g c BLOCK 0 STREAMS s $"] {
            let bytes = request(asked);
            assert_eq!(newest_wanted(entry(&bytes), Request::new(&bytes)).count(), 0, "{asked}");
        }
    }
}
