//! What a session has the server track (`CLIENT TRACKING`), so that it can be asked again on another connection; and where
//! a request names another session as the one to be told.
use crate::resp::frame::Request;
use crate::resp::parse_i64;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// What a client that keeps copies must hear when it may have missed something: forget all of them. In RESP3, and as a
/// subscriber in RESP2 hears it (`sendTrackingMessage` in `tracking.c`, as at `FLUSHALL`).
pub const FLUSH_RESP3: &[u8] = b">2\r\n$10\r\ninvalidate\r\n_\r\n";
/// See [`FLUSH_RESP3`].
pub const FLUSH_RESP2: &[u8] = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n$-1\r\n";

/// What a session has the server track.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tracking {
    /// The session that is told; 0: itself.
    pub redirect: u64,
    /// The server's id of that one's connection when it was last told; 0: not known.
    pub connection: u64,
    /// The requests that made it so, in the client's words; empty if they were too much to keep.
    requests: Vec<Box<[u8]>>,
}

impl Tracking {
    /// What it is after the server said yes to a request. Prefixes add up, all else is as the last request says
    /// (`enableTracking` in `tracking.c`).
    pub fn after(was: Option<Box<Tracking>>, request: Box<[u8]>) -> Option<Box<Tracking>> {
        let mut args = Request::new(&request).args().skip(2);
        if !args.next()?.eq_ignore_ascii_case(b"ON") {
            return None;
        }
        let adds =
            options(Request::new(&request)).any(|(_, option, _)| option.eq_ignore_ascii_case(b"BCAST"));
        let mut now = was.unwrap_or_default();
        now.redirect = redirect(Request::new(&request)).map_or(0, |(_, to)| to);
        now.requests.retain(|r| adds && *r != request);
        now.requests.push(request);
        Some(now)
    }

    /// Keeps no more than so many bytes.
    pub fn bound(&mut self, bytes_max: usize) {
        if self.requests.iter().map(|r| r.len()).sum::<usize>() > bytes_max {
            self.requests.clear();
        }
    }

    /// Whether it can be asked for again.
    pub fn is_known(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Whether only what is read behind a `CLIENT CACHING YES` is tracked.
    pub fn opts_in(&self) -> bool {
        let says =
            |r: &[u8]| options(Request::new(r)).any(|(_, option, _)| option.eq_ignore_ascii_case(b"OPTIN"));
        self.requests.last().is_some_and(|r| says(r))
    }

    /// The requests, in a server's words: `connection` is its id of the connection of the session that is told.
    pub fn requests(&self, connection: u64) -> impl Iterator<Item = Vec<u8>> {
        self.requests.iter().map(move |r| {
            let req = Request::new(r);
            redirect(req).map_or(r.to_vec(), |(at, _)| req.with_number(at, connection))
        })
    }
}

/// Which session a `CLIENT TRACKING … REDIRECT` names, and where in the request it does. `None`: none, or what no session
/// can be; the server will say so.
pub fn redirect(req: Request<'_>) -> Option<(usize, u64)> {
    let mut named = options(req).filter(|(_, option, _)| option.eq_ignore_ascii_case(b"REDIRECT"));
    let (at, _, value) = named.next()?;
    let session = parse_i64(value?).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0)?;
    Some((at + 1, session))
}

/// The options of a request, with their places and what follows them (`clientCommand` in `networking.c`).
fn options<'a>(req: Request<'a>) -> impl Iterator<Item = (usize, &'a [u8], Option<&'a [u8]>)> {
    let mut args = req.args().enumerate().skip(3).peekable();
    core::iter::from_fn(move || {
        let (at, option) = args.next()?;
        let takes = |word: &[u8]| option.eq_ignore_ascii_case(word);
        let value = if takes(b"REDIRECT") || takes(b"PREFIX") { args.next().map(|(_, v)| v) } else { None };
        Some((at, option, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::reply;
    use alloc::string::{String, ToString};

    fn request(text: &str) -> Box<[u8]> {
        let mut bytes = Vec::new();
        reply::request(&mut bytes, &text.split(' ').collect::<Vec<_>>());
        bytes.into()
    }

    fn after(texts: &[&str]) -> Option<Box<Tracking>> {
        texts.iter().fold(None, |was, text| Tracking::after(was, request(text)))
    }

    fn again(texts: &[&str]) -> Vec<String> {
        let words = |bytes: Vec<u8>| -> Vec<String> {
            Request::new(&bytes).args().map(|a| String::from_utf8_lossy(a).to_string()).collect()
        };
        after(texts).expect("it tracks").requests(99).map(|bytes| words(bytes).join(" ")).collect()
    }

    #[test]
    fn the_session_that_is_told_is_found_where_the_server_looks_for_it() {
        let named = |text: &str| redirect(Request::new(&request(text)));
        assert_eq!(named("CLIENT TRACKING on redirect 12 BCAST"), Some((4, 12)));
        assert_eq!(named("CLIENT TRACKING ON BCAST PREFIX REDIRECT REDIRECT 5"), Some((7, 5)));
        for none in ["CLIENT TRACKING ON", "CLIENT TRACKING ON REDIRECT", "CLIENT TRACKING ON REDIRECT x"] {
            assert_eq!(named(none), None, "{none}");
        }
        assert_eq!(named("CLIENT TRACKING ON REDIRECT 0"), None, "nobody has this id");
    }

    #[test]
    fn it_is_asked_for_again_as_it_came_to_be() {
        assert_eq!(again(&["CLIENT TRACKING ON", "CLIENT TRACKING ON OPTIN"]), ["CLIENT TRACKING ON OPTIN"]);
        let both = ["CLIENT TRACKING ON BCAST PREFIX a REDIRECT 3", "client tracking on bcast prefix b"];
        assert_eq!(again(&both), ["CLIENT TRACKING ON BCAST PREFIX a REDIRECT 99", both[1]]);
        assert_eq!(after(&both).map(|t| t.redirect), Some(0), "the last one says who is told");
        assert_eq!(after(&[both[0]]).map(|t| t.redirect), Some(3));
        assert_eq!(again(&[both[1], both[1]]), [both[1]]);
        assert_eq!(after(&["CLIENT TRACKING ON", "CLIENT TRACKING off"]), None);
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        let mut tracking = after(&["CLIENT TRACKING ON BCAST PREFIX a"]).expect("it tracks");
        tracking.bound(100);
        assert!(tracking.is_known());
        tracking.bound(20);
        assert!(!tracking.is_known());
    }
}
