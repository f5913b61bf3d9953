//! Finds where a request or a reply ends, in a buffer that grows. A scan resumes where it stopped: no byte of a
//! header is looked at twice, and no byte of a bulk string is looked at at all.
//!
//! Both scans are given the buffer from the first byte of the current frame on. They remember a position in it, which
//! may lie beyond its end (in the middle of a bulk string); [`RequestScan::forwarded`] and [`ReplyScan::forwarded`]
//! tell them that bytes at the front were taken away.
use super::{header, parse_i64};
use crate::policy::Limits;
use memchr::memchr;
use smallvec::SmallVec;

/// What is wrong with a request or reply. A client is told [`Malformed::text`] and closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// A multibulk header is no integer, or too large.
    ArrayLength,
    /// A bulk header is no integer, negative, or too large.
    BulkLength,
    /// An argument does not begin with `$` but with this byte.
    ExpectedBulk(u8),
    /// A multibulk header does not end.
    ArrayHeader,
    /// A bulk header does not end.
    BulkHeader,
    /// An inline request does not end.
    Inline,
    /// The quotes of an inline request do not match.
    Quotes,
    /// More than 10 arguments from a client that must authenticate first.
    UnauthArrayLength,
    /// A bulk string of more than 16 KiB from a client that must authenticate first.
    UnauthBulkLength,
    /// A reply with an unknown type byte.
    Type(u8),
    /// A reply that is nested too deeply.
    Depth,
    /// A reply's line that is too long, or not ended as RESP says.
    Line,
}

impl Malformed {
    /// Redis' own words (`setProtocolError` callers in `networking.c`), without the `-ERR Protocol error: ` before.
    pub fn text(self) -> &'static str {
        match self {
            Malformed::ArrayLength => "invalid multibulk length",
            Malformed::BulkLength => "invalid bulk length",
            Malformed::ExpectedBulk(_) => "expected '$', got ",
            Malformed::ArrayHeader => "too big mbulk count string",
            Malformed::BulkHeader => "too big bulk count string",
            Malformed::Inline => "too big inline request",
            Malformed::Quotes => "unbalanced quotes in request",
            Malformed::UnauthArrayLength => "unauthenticated multibulk length",
            Malformed::UnauthBulkLength => "unauthenticated bulk length",
            Malformed::Type(_) => "unknown reply type",
            Malformed::Depth => "reply nested too deeply",
            Malformed::Line => "malformed reply line",
        }
    }
}

/// Where a scan of a request stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestStep {
    /// The frame is not complete.
    More,
    /// The frame is an array of at least one bulk string, and ends after `len` bytes.
    Array {
        /// Bytes from the frame's start.
        len: usize,
    },
    /// The frame is an inline request, and ends after `len` bytes (its line feed included).
    Inline {
        /// Bytes from the frame's start.
        len: usize,
    },
    /// An empty multibulk, which gets no reply.
    Empty {
        /// Bytes from the frame's start.
        len: usize,
    },
}

/// Bounds on what a client that must authenticate first may send (Redis: `authRequired` in
/// `processMultibulkBuffer`).
const UNAUTH_ARGS_MAX: i64 = 10;
const UNAUTH_BULK_MAX: i64 = 16384;

/// A resumable scan of one request.
#[derive(Clone, Debug, Default)]
pub struct RequestScan {
    /// The next byte to look at.
    pos: usize,
    /// No end of line before this.
    looked: usize,
    /// Arguments still to come; `None` before the header.
    args_left: Option<u64>,
}

impl RequestScan {
    /// Scans on. `buf` begins with the frame's first byte that was not [`forwarded`](Self::forwarded). After a
    /// complete frame the scan is ready for the next, whose first byte is then `buf`'s first.
    pub fn next(
        &mut self,
        buf: &[u8],
        lim: &Limits,
        unauthenticated: bool,
    ) -> Result<RequestStep, Malformed> {
        let mut left = match self.args_left {
            Some(left) => left,
            None => match buf.first() {
                None => return Ok(RequestStep::More),
                Some(b'*') => {
                    let Some(line) = self.line(buf, lim, Malformed::ArrayHeader)? else {
                        return Ok(RequestStep::More);
                    };
                    let n = parse_i64(line).filter(|n| *n <= 0 || n.unsigned_abs() <= lim.args_max);
                    let n = n.ok_or(Malformed::ArrayLength)?;
                    if unauthenticated && n > UNAUTH_ARGS_MAX {
                        return Err(Malformed::UnauthArrayLength);
                    }
                    if n <= 0 {
                        return Ok(RequestStep::Empty { len: self.finish() });
                    }
                    n.unsigned_abs()
                }
                Some(_) => return self.inline(buf, lim),
            },
        };
        while left > 0 {
            if self.pos >= buf.len() {
                self.args_left = Some(left);
                return Ok(RequestStep::More);
            }
            if buf[self.pos] != b'$' {
                return Err(Malformed::ExpectedBulk(buf[self.pos]));
            }
            if let Some((n, used)) = header(&buf[self.pos + 1..])
                && n as u64 <= lim.bulk_max
                && !unauthenticated
            {
                self.pos += used + n + 3;
                self.looked = self.pos;
                left -= 1;
                continue;
            }
            let Some(line) = self.line(buf, lim, Malformed::BulkHeader)? else {
                self.args_left = Some(left);
                return Ok(RequestStep::More);
            };
            let n = parse_i64(line).filter(|n| *n >= 0 && n.unsigned_abs() <= lim.bulk_max);
            let n = n.ok_or(Malformed::BulkLength)?;
            if unauthenticated && n > UNAUTH_BULK_MAX {
                return Err(Malformed::UnauthBulkLength);
            }
            self.skip(n)?;
            left -= 1;
        }
        if self.pos > buf.len() {
            self.args_left = Some(0);
            return Ok(RequestStep::More);
        }
        Ok(RequestStep::Array { len: self.finish() })
    }

    /// How long the frame is at least, by the headers seen so far.
    pub fn len_min(&self) -> usize {
        self.pos
    }

    /// How many bytes are missing, of a buffer of `len`, to the next byte that the scan has to look at: the rest of a
    /// bulk string.
    pub fn missing(&self, len: usize) -> usize {
        self.pos.saturating_sub(len)
    }

    /// How many of the `len` bytes of the buffer the scan needs no longer: all but a header that has no end yet.
    pub fn passed(&self, len: usize) -> usize {
        self.pos.min(len)
    }

    /// The caller took `n` bytes away from the front of the buffer, at most those that were [`passed`](Self::passed).
    pub fn forwarded(&mut self, n: usize) {
        self.pos = self.pos.saturating_sub(n);
        self.looked = self.looked.saturating_sub(n);
    }

    /// Whether the front of the buffer is the start of a frame.
    pub fn at_start(&self) -> bool {
        self.pos == 0 && self.args_left.is_none()
    }

    /// The bytes between the type byte at `pos` and the next carriage return; steps over the line's end. Redis looks
    /// for the CR alone, and takes the byte behind it on trust; so do we, and the server sees the same bytes.
    fn line<'a>(
        &mut self,
        buf: &'a [u8],
        lim: &Limits,
        long: Malformed,
    ) -> Result<Option<&'a [u8]>, Malformed> {
        let from = self.looked.max(self.pos);
        let end = find_cr(&buf[from..]).map(|i| from + i);
        match end {
            Some(end) if end + 1 < buf.len() => {
                let line = &buf[self.pos + 1..end];
                self.pos = end + 2;
                self.looked = self.pos;
                Ok(Some(line))
            }
            Some(end) => {
                self.looked = end;
                Ok(None)
            }
            None => {
                self.looked = buf.len();
                if buf.len() - self.pos > lim.inline_max { Err(long) } else { Ok(None) }
            }
        }
    }

    fn skip(&mut self, n: i64) -> Result<(), Malformed> {
        let n = usize::try_from(n).map_err(|_| Malformed::BulkLength)?;
        self.pos = self.pos.checked_add(n).and_then(|p| p.checked_add(2)).ok_or(Malformed::BulkLength)?;
        self.looked = self.pos;
        Ok(())
    }

    fn inline(&mut self, buf: &[u8], lim: &Limits) -> Result<RequestStep, Malformed> {
        match memchr(b'\n', &buf[self.looked..]) {
            Some(i) => {
                let len = self.looked + i + 1;
                self.finish();
                Ok(RequestStep::Inline { len })
            }
            None if buf.len() > lim.inline_max => Err(Malformed::Inline),
            None => {
                self.looked = buf.len();
                Ok(RequestStep::More)
            }
        }
    }

    fn finish(&mut self) -> usize {
        let len = self.pos;
        *self = RequestScan::default();
        len
    }
}

/// Whether all requests in `buf` are well-formed and within limits, as far as can be seen of the last.
pub fn all(buf: &[u8], lim: &Limits, unauthenticated: bool) -> Result<(), Malformed> {
    let (mut scan, mut at) = (RequestScan::default(), 0);
    loop {
        match scan.next(&buf[at..], lim, unauthenticated)? {
            RequestStep::More => return Ok(()),
            RequestStep::Array { len } | RequestStep::Inline { len } | RequestStep::Empty { len } => {
                at += len
            }
        }
    }
}

/// Where a scan of a reply stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyStep {
    /// The frame is not complete.
    More,
    /// The frame ends after `len` bytes.
    Frame {
        /// Bytes from the frame's start.
        len: usize,
        /// The type byte of the reply itself (after any attribute): `b'+'`, `b'-'`, `b'>'` for a push …
        kind: u8,
    },
}

#[derive(Clone, Copy, Debug)]
struct Level {
    left: u64,
    attribute: bool,
}

/// A resumable scan of one reply.
#[derive(Clone, Debug, Default)]
pub struct ReplyScan {
    pos: usize,
    looked: usize,
    kind: u8,
    /// Whether the bytes up to `pos` complete the frame, once they are there.
    done: bool,
    levels: SmallVec<[Level; 4]>,
}

impl ReplyScan {
    /// Scans on; see [`RequestScan::next`].
    pub fn next(&mut self, buf: &[u8], lim: &Limits) -> Result<ReplyStep, Malformed> {
        while !self.done {
            if self.pos >= buf.len() {
                return Ok(ReplyStep::More);
            }
            let kind = buf[self.pos];
            if kind == b'$'
                && let Some((n, used)) = header(&buf[self.pos + 1..])
            {
                if self.levels.is_empty() {
                    self.kind = kind;
                }
                self.pos += used + n + 3;
                self.looked = self.pos;
                self.complete();
                continue;
            }
            let Some(line) = self.line(buf, lim)? else { return Ok(ReplyStep::More) };
            if self.levels.is_empty() && kind != b'|' {
                self.kind = kind;
            }
            self.element(kind, line, lim)?;
        }
        if self.pos > buf.len() {
            return Ok(ReplyStep::More);
        }
        let (len, kind) = (self.pos, self.kind);
        self.levels.clear();
        (self.pos, self.looked, self.kind, self.done) = (0, 0, 0, false);
        Ok(ReplyStep::Frame { len, kind })
    }

    /// How many bytes are missing, of a buffer of `len`, to the next byte that the scan has to look at: the rest of a
    /// bulk string.
    pub fn missing(&self, len: usize) -> usize {
        self.pos.saturating_sub(len)
    }

    /// How many of the `len` bytes of the buffer the scan needs no longer: all but a header that has no end yet.
    pub fn passed(&self, len: usize) -> usize {
        self.pos.min(len)
    }

    /// The caller took `n` bytes away from the front of the buffer, at most those that were [`passed`](Self::passed).
    pub fn forwarded(&mut self, n: usize) {
        self.pos = self.pos.saturating_sub(n);
        self.looked = self.looked.saturating_sub(n);
    }

    /// The type byte of the reply, once its first header was seen; 0 before.
    pub fn kind(&self) -> u8 {
        self.kind
    }

    fn element(&mut self, kind: u8, line: &[u8], lim: &Limits) -> Result<(), Malformed> {
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => self.complete(),
            b'$' | b'!' | b'=' => {
                let n = parse_i64(line).ok_or(Malformed::BulkLength)?;
                if n >= 0 {
                    let n = usize::try_from(n).map_err(|_| Malformed::BulkLength)?;
                    self.pos = self
                        .pos
                        .checked_add(n)
                        .and_then(|p| p.checked_add(2))
                        .ok_or(Malformed::BulkLength)?;
                    self.looked = self.pos;
                } else if n != -1 {
                    return Err(Malformed::BulkLength);
                }
                self.complete();
            }
            b'*' | b'~' => self.aggregate(line, 1, false, lim)?,
            // A push within another reply is none of its elements: until 7.2 what is published in a transaction, and is the
            // session's own to hear, comes in the middle of the reply to EXEC.
            b'>' => self.aggregate(line, 1, !self.levels.is_empty(), lim)?,
            b'%' => self.aggregate(line, 2, false, lim)?,
            b'|' => self.aggregate(line, 2, true, lim)?,
            other => return Err(Malformed::Type(other)),
        }
        Ok(())
    }

    fn aggregate(&mut self, line: &[u8], times: u64, attribute: bool, lim: &Limits) -> Result<(), Malformed> {
        let n = parse_i64(line).filter(|n| *n >= -1).ok_or(Malformed::ArrayLength)?;
        let left = u64::try_from(n).unwrap_or(0).checked_mul(times).ok_or(Malformed::ArrayLength)?;
        if left == 0 {
            if !attribute {
                self.complete();
            }
            return Ok(());
        }
        if self.levels.len() >= lim.depth_max {
            return Err(Malformed::Depth);
        }
        self.levels.push(Level { left, attribute });
        Ok(())
    }

    /// One element is complete; so are the aggregates whose last element it was. An attribute is no element.
    fn complete(&mut self) {
        while let Some(top) = self.levels.last_mut() {
            top.left -= 1;
            if top.left > 0 {
                return;
            }
            let attribute = top.attribute;
            self.levels.pop();
            if attribute {
                return;
            }
        }
        self.done = true;
    }

    fn line<'a>(&mut self, buf: &'a [u8], lim: &Limits) -> Result<Option<&'a [u8]>, Malformed> {
        let from = self.looked.max(self.pos + 1);
        match find_cr(buf.get(from..).unwrap_or_default()).map(|i| from + i) {
            Some(end) if end + 1 < buf.len() => {
                if buf[end + 1] != b'\n' {
                    return Err(Malformed::Line);
                }
                let line = &buf[self.pos + 1..end];
                self.pos = end + 2;
                self.looked = self.pos;
                Ok(Some(line))
            }
            Some(end) => {
                self.looked = end;
                Ok(None)
            }
            None => {
                self.looked = buf.len();
                // A script can make error texts and simple strings as long as any, but not without end.
                if (buf.len() - self.pos) as u64 > lim.bulk_max.max(lim.inline_max as u64) {
                    Err(Malformed::Line)
                } else {
                    Ok(None)
                }
            }
        }
    }
}

/// The first carriage return. Most lines are a few bytes long, for which a plain loop beats a vectorised search.
#[inline]
fn find_cr(bytes: &[u8]) -> Option<usize> {
    const SHORT: usize = 12;
    let short = &bytes[..bytes.len().min(SHORT)];
    match short.iter().position(|b| *b == b'\r') {
        Some(i) => Some(i),
        None => memchr(b'\r', &bytes[short.len()..]).map(|i| i + short.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn request_lens(bytes: &[u8]) -> Result<Vec<usize>, Malformed> {
        let (mut scan, lim, mut at, mut lens) = (RequestScan::default(), Limits::default(), 0, Vec::new());
        loop {
            match scan.next(&bytes[at..], &lim, false)? {
                RequestStep::More => return Ok(lens),
                RequestStep::Array { len } | RequestStep::Inline { len } | RequestStep::Empty { len } => {
                    lens.push(len);
                    at += len;
                }
            }
        }
    }

    #[test]
    fn requests_of_every_form_are_framed() {
        let all = b"*1\r\n$4\r\nPING\r\n*0\r\n*-1\r\nPING\r\n\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n";
        assert_eq!(request_lens(all), Ok([14, 4, 5, 6, 2, 19].into()));
    }

    #[test]
    fn malformed_requests_get_the_words_of_redis() {
        let bad: [(&[u8], Malformed); 9] = [
            (b"*x\r\n", Malformed::ArrayLength),
            (b"*01\r\n", Malformed::ArrayLength),
            (b"*3000000000\r\n", Malformed::ArrayLength),
            (b"*1\r\n$-1\r\n", Malformed::BulkLength),
            (b"*1\r\n$ 4\r\n", Malformed::BulkLength),
            (b"*1\r\n$536870913\r\n", Malformed::BulkLength),
            (b"*1\r\n:1\r\n", Malformed::ExpectedBulk(b':')),
            (b"*99999999999999999999\r\n", Malformed::ArrayLength),
            (b"*1\r\n$99999999999999999999\r\n", Malformed::BulkLength),
        ];
        for (bytes, why) in bad {
            assert_eq!(request_lens(bytes), Err(why), "{}", bytes.escape_ascii());
        }
        assert_eq!(request_lens(&[b'a'; 70000]), Err(Malformed::Inline));
        let long: Vec<u8> = b"*".iter().copied().chain([b'1'; 70000]).collect();
        assert_eq!(request_lens(&long), Err(Malformed::ArrayHeader));
        let long: Vec<u8> = b"*1\r\n$".iter().copied().chain([b'1'; 70000]).collect();
        assert_eq!(request_lens(&long), Err(Malformed::BulkHeader));
    }

    #[test]
    fn a_client_that_must_authenticate_may_send_little() {
        let mut scan = RequestScan::default();
        assert_eq!(scan.next(b"*11\r\n", &Limits::default(), true), Err(Malformed::UnauthArrayLength));
        let mut scan = RequestScan::default();
        assert_eq!(
            scan.next(b"*1\r\n$16385\r\n", &Limits::default(), true),
            Err(Malformed::UnauthBulkLength)
        );
    }

    #[test]
    fn a_large_request_can_be_forwarded_while_it_arrives() {
        let (mut scan, lim) = (RequestScan::default(), Limits::default());
        assert_eq!(scan.next(b"*1\r\n$10\r\n01234", &lim, false), Ok(RequestStep::More));
        assert_eq!(scan.len_min(), 21);
        scan.forwarded(14);
        assert_eq!(scan.next(b"56", &lim, false), Ok(RequestStep::More));
        scan.forwarded(2);
        assert_eq!(scan.next(b"789\r\nPING\r\n", &lim, false), Ok(RequestStep::Array { len: 5 }));
        assert!(scan.at_start());
    }

    fn reply_frames(bytes: &[u8]) -> Result<Vec<(usize, u8)>, Malformed> {
        let (mut scan, lim, mut at, mut frames) = (ReplyScan::default(), Limits::default(), 0, Vec::new());
        loop {
            match scan.next(&bytes[at..], &lim)? {
                ReplyStep::More => return Ok(frames),
                ReplyStep::Frame { len, kind } => {
                    frames.push((len, kind));
                    at += len;
                }
            }
        }
    }

    #[test]
    fn every_type_of_reply_is_framed() {
        let replies: &[&[u8]] = &[
            b"+OK\r\n",
            b"-ERR x\r\n",
            b":-3\r\n",
            b"$-1\r\n",
            b"$0\r\n\r\n",
            b"$3\r\na\r\n\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*2\r\n*1\r\n:1\r\n$1\r\nx\r\n",
            b"_\r\n",
            b"#t\r\n",
            b",1.5\r\n",
            b"(12345678901234567890\r\n",
            b"!5\r\nERR x\r\n",
            b"=7\r\ntxt:abc\r\n",
            b"%1\r\n+a\r\n*2\r\n:1\r\n:2\r\n",
            b"~2\r\n:1\r\n:2\r\n",
            b">2\r\n+pong\r\n:1\r\n",
        ];
        for r in replies {
            assert_eq!(reply_frames(r), Ok([(r.len(), r[0])].into()), "{}", r.escape_ascii());
        }
        let with_attribute = b"|1\r\n+ttl\r\n:3\r\n*2\r\n|1\r\n+a\r\n%0\r\n:1\r\n:2\r\n";
        assert_eq!(reply_frames(with_attribute), Ok([(with_attribute.len(), b'*')].into()));
        let with_push = b"*2\r\n>2\r\n+message\r\n+hi\r\n:1\r\n>1\r\n+last\r\n:2\r\n";
        assert_eq!(reply_frames(with_push), Ok([(with_push.len(), b'*')].into()));
    }

    #[test]
    fn garbage_is_no_reply() {
        assert_eq!(reply_frames(b"HTTP/1.1 200 OK\r\n"), Err(Malformed::Type(b'H')));
        assert_eq!(reply_frames(b"*?\r\n"), Err(Malformed::ArrayLength));
        assert_eq!(reply_frames(b"$-2\r\n"), Err(Malformed::BulkLength));
        assert_eq!(reply_frames(b"+O\rK\r\n"), Err(Malformed::Line));
        let deep = b"*1\r\n".repeat(Limits::default().depth_max + 1);
        assert_eq!(reply_frames(&deep), Err(Malformed::Depth));
    }

    fn request() -> impl Strategy<Value = Vec<u8>> {
        let args = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..5);
        let array = args.prop_map(|args| {
            let mut out = format!("*{}\r\n", args.len()).into_bytes();
            for a in args {
                out.extend_from_slice(format!("${}\r\n", a.len()).as_bytes());
                out.extend_from_slice(&a);
                out.extend_from_slice(b"\r\n");
            }
            out
        });
        prop_oneof![
            8 => array,
            1 => Just(b"*0\r\n".to_vec()),
            1 => "[a-z ]{0,10}\r?\n".prop_map(|s| s.into_bytes()),
        ]
    }

    fn reply() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            "[+:,(-][0-9]{1,5}\r\n".prop_map(|s| s.into_bytes()),
            Just(b"_\r\n".to_vec()),
            Just(b"$-1\r\n".to_vec()),
            (prop::sample::select(b"$=!".to_vec()), prop::collection::vec(any::<u8>(), 0..20)).prop_map(
                |(t, b)| {
                    let mut out = format!("{}{}\r\n", t as char, b.len()).into_bytes();
                    out.extend_from_slice(&b);
                    out.extend_from_slice(b"\r\n");
                    out
                }
            ),
        ];
        leaf.prop_recursive(4, 30, 4, |inner| {
            let kinds = prop::sample::select(b"*~%".to_vec());
            (kinds, any::<bool>(), any::<bool>(), prop::collection::vec(inner, 0..4)).prop_map(
                |(t, attribute, pushed, mut items)| {
                    if t == b'%' && items.len() % 2 == 1 {
                        items.pop();
                    }
                    let n = if t == b'%' { items.len() / 2 } else { items.len() };
                    let mut out = Vec::new();
                    if attribute {
                        out.extend_from_slice(b"|1\r\n+k\r\n*1\r\n:1\r\n");
                    }
                    out.extend_from_slice(format!("{}{n}\r\n", t as char).as_bytes());
                    if pushed && n > 0 {
                        out.extend_from_slice(b">2\r\n+message\r\n:1\r\n");
                    }
                    out.extend(items.into_iter().flatten());
                    out
                },
            )
        })
    }

    /// What a scan makes of the front of a buffer.
    enum Front {
        /// A frame of this length.
        Frame(usize),
        /// No frame yet; so many bytes were passed on.
        Passed(usize),
    }

    /// Feeds `bytes` in pieces that end at `cuts`, as a connection's buffer sees them; the lengths of the frames.
    fn in_pieces(bytes: &[u8], cuts: &[usize], mut next: impl FnMut(&[u8]) -> Front) -> Vec<usize> {
        let (mut buf, mut lens, mut from, mut passed) = (Vec::new(), Vec::new(), 0, 0);
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (bytes.len() + 1)).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        for cut in cuts {
            buf.extend_from_slice(&bytes[from..cut]);
            from = cut;
            loop {
                match next(&buf) {
                    Front::Frame(len) => {
                        lens.push(passed + len);
                        passed = 0;
                        buf.drain(..len);
                    }
                    Front::Passed(n) => {
                        passed += n;
                        buf.drain(..n);
                        break;
                    }
                }
            }
        }
        lens
    }

    proptest! {
        #[test]
        fn however_requests_arrive_and_are_passed_on_they_frame_the_same(
            requests in prop::collection::vec(request(), 1..8),
            cuts in prop::collection::vec(any::<usize>(), 0..40),
            pass_on in any::<bool>(),
        ) {
            let (bytes, lim, mut scan) = (requests.concat(), Limits::default(), RequestScan::default());
            let lens = in_pieces(&bytes, &cuts, |buf| match scan.next(buf, &lim, false).expect("valid") {
                RequestStep::More => {
                    let n = if pass_on { scan.passed(buf.len()) } else { 0 };
                    scan.forwarded(n);
                    Front::Passed(n)
                }
                RequestStep::Array { len } | RequestStep::Inline { len } | RequestStep::Empty { len } => {
                    Front::Frame(len)
                }
            });
            prop_assert_eq!(lens, requests.iter().map(Vec::len).collect::<Vec<_>>());
        }

        #[test]
        fn however_replies_arrive_and_are_passed_on_they_frame_the_same(
            replies in prop::collection::vec(reply(), 1..8),
            cuts in prop::collection::vec(any::<usize>(), 0..40),
            pass_on in any::<bool>(),
        ) {
            let (bytes, lim, mut scan) = (replies.concat(), Limits::default(), ReplyScan::default());
            let lens = in_pieces(&bytes, &cuts, |buf| match scan.next(buf, &lim).expect("valid") {
                ReplyStep::More => {
                    let n = if pass_on { scan.passed(buf.len()) } else { 0 };
                    scan.forwarded(n);
                    Front::Passed(n)
                }
                ReplyStep::Frame { len, .. } => Front::Frame(len),
            });
            prop_assert_eq!(lens, replies.iter().map(Vec::len).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_a_scan_panic_or_loop(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = request_lens(&bytes);
            let _ = reply_frames(&bytes);
        }
    }
}
