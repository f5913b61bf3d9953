//! Views into complete frames, without copying.
use super::scan::{ReplyScan, ReplyStep};
use super::{header, parse_i64, reply};
use crate::policy::Limits;
use alloc::format;
use alloc::vec::Vec;
use memchr::memchr;

/// A complete request in array form, as [`RequestStep::Array`](super::scan::RequestStep) framed it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    bytes: &'a [u8],
}

impl<'a> Request<'a> {
    /// A view of `bytes`, which a scan has framed (or, of a request that streams, the part with its first arguments).
    pub fn new(bytes: &'a [u8]) -> Request<'a> {
        Request { bytes }
    }

    /// The frame.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Its arguments, the command's name first.
    pub fn args(self) -> Args<'a> {
        let body =
            memchr(b'\r', self.bytes).map_or(&[][..], |end| self.bytes.get(end + 2..).unwrap_or_default());
        Args { rest: body }
    }

    /// How many arguments its header announces, the name among them.
    pub fn announced(self) -> u32 {
        let header = memchr(b'\r', self.bytes).and_then(|end| self.bytes.get(1..end));
        header.and_then(parse_i64).and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX)
    }

    /// The command's name, as typed.
    pub fn name(self) -> &'a [u8] {
        self.args().next().unwrap_or_default()
    }

    /// How many bytes there are up to the end of the name.
    pub fn name_end(self) -> usize {
        let mut args = self.args();
        args.next();
        self.bytes.len() - args.rest.len()
    }

    /// The same, with another name. Of a request that is not complete as much as is there.
    pub fn renamed(self, name: &str) -> Vec<u8> {
        let header = memchr(b'\n', self.bytes).map_or(0, |end| end + 1);
        let mut out = self.bytes[..header].to_vec();
        reply::bulk(&mut out, name.as_bytes());
        out.extend_from_slice(&self.bytes[self.name_end()..]);
        out
    }

    /// The same, with a number as the argument at this place.
    pub fn with_number(self, at: usize, number: u64) -> Vec<u8> {
        let number = format!("{number}");
        let words: Vec<&[u8]> =
            self.args().enumerate().map(|(i, arg)| if i == at { number.as_bytes() } else { arg }).collect();
        let mut out = Vec::new();
        reply::request(&mut out, &words);
        out
    }
}

/// Iterates over a request's arguments.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Args<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, from) = match header(self.rest.get(1..)?) {
            Some((len, used)) => (len, used + 1),
            None => {
                let end = memchr(b'\r', self.rest)?;
                (usize::try_from(parse_i64(self.rest.get(1..end)?)?).ok()?, end + 2)
            }
        };
        let arg = self.rest.get(from..from.checked_add(len)?)?;
        self.rest = self.rest.get(from + len + 2..).unwrap_or_default();
        Some(arg)
    }
}

/// The elements of a flat-enough reply: walks an aggregate's direct children.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    left: usize,
}

/// One element of a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Element<'a> {
    /// A simple string, error, integer, double …: its type byte and text.
    Line(u8, &'a [u8]),
    /// A bulk string (or bulk error, or verbatim string).
    Bulk(&'a [u8]),
    /// A null of any kind.
    Null,
    /// An aggregate with so many children; they follow as elements of their own.
    Aggregate(u8, usize),
}

impl<'a> Elements<'a> {
    /// All elements of the complete reply `frame`, depth first, its own header included.
    pub fn of(frame: &'a [u8]) -> Elements<'a> {
        Elements { rest: frame, left: usize::MAX }
    }

    /// What follows the elements that were taken.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        if self.left == 0 {
            return None;
        }
        let kind = *self.rest.first()?;
        let end = memchr(b'\r', self.rest)?;
        let line = self.rest.get(1..end)?;
        let mut after = end + 2;
        let element = match kind {
            b'$' | b'!' | b'=' => match usize::try_from(parse_i64(line)?) {
                Ok(len) => {
                    let bulk = self.rest.get(after..after.checked_add(len)?)?;
                    after += len + 2;
                    Element::Bulk(bulk)
                }
                Err(_) => Element::Null,
            },
            b'*' | b'~' | b'>' | b'%' | b'|' => match usize::try_from(parse_i64(line)?) {
                Ok(n) => Element::Aggregate(kind, n),
                Err(_) => Element::Null,
            },
            b'_' => Element::Null,
            _ => Element::Line(kind, line),
        };
        self.rest = self.rest.get(after..).unwrap_or_default();
        self.left -= 1;
        Some(element)
    }
}

/// The direct children of the complete aggregate `frame`, each as its bytes.
pub fn children(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lim = Limits::default();
    let mut rest = memchr(b'\r', frame).and_then(|end| frame.get(end + 2..)).unwrap_or_default();
    core::iter::from_fn(move || match ReplyScan::default().next(rest, &lim) {
        Ok(ReplyStep::Frame { len, .. }) => {
            let (child, after) = rest.split_at(len);
            rest = after;
            Some(child)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_can_be_renamed_when_only_its_name_is_there() {
        for rest in ["", "$1\r\nk\r\n", "$1\r\nk\r\n$200\r\nxx"] {
            let bytes = alloc::format!("*3\r\n$3\r\nSET\r\n{rest}");
            let want = alloc::format!("*3\r\n$5\r\nMYSET\r\n{rest}");
            assert_eq!(Request::new(bytes.as_bytes()).renamed("MYSET"), want.as_bytes());
        }
    }

    #[test]
    fn arguments_are_seen_in_place() {
        let r = Request::new(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\r\n\r\n");
        assert_eq!(r.args().collect::<Vec<_>>(), [&b"SET"[..], b"k", b"\r\n"]);
        assert_eq!(r.name(), b"SET");
    }

    #[test]
    fn the_part_of_a_request_that_has_arrived_shows_its_first_arguments() {
        let r = Request::new(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$200\r\nxx");
        assert_eq!(r.args().collect::<Vec<_>>(), [&b"SET"[..], b"k"]);
    }

    #[test]
    fn elements_walk_depth_first() {
        let all: Vec<_> = Elements::of(b"*2\r\n$1\r\na\r\n%1\r\n+k\r\n_\r\n").collect();
        let want = [
            Element::Aggregate(b'*', 2),
            Element::Bulk(b"a"),
            Element::Aggregate(b'%', 1),
            Element::Line(b'+', b"k"),
            Element::Null,
        ];
        assert_eq!(all, want);
    }
}
