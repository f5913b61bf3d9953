//! A small decoder of RESP2 replies, for observers: it makes values, and takes no more than [`REPLY_MAX`] for one.
use alloc::vec::Vec;

/// The longest reply that an observer takes, in bytes. A Sentinel's list of 64 replicas is about 60 KB.
const REPLY_MAX: usize = 1 << 20;
/// The longest line.
const LINE_MAX: usize = 16 << 10;
/// The deepest nesting.
const DEPTH_MAX: usize = 8;

/// A reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Value>),
}

impl Value {
    /// The bytes of a string.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Simple(b) | Value::Bulk(b) => Some(b),
            _ => None,
        }
    }

    /// The text of a string.
    pub(crate) fn text(&self) -> Option<&str> {
        core::str::from_utf8(self.bytes()?).ok()
    }

    /// The elements of an array; none of anything else.
    pub(crate) fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) => items,
            _ => &[],
        }
    }

    /// The field of a flat list of names and values.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.items().chunks_exact(2).find(|pair| pair[0].bytes() == Some(name.as_bytes()))?[1].text()
    }

    /// The field as a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }
}

/// Makes values out of bytes as they come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decoder {
    buf: Vec<u8>,
    /// Where the next value begins.
    at: usize,
    /// How far the end of its line was looked for.
    scanned: usize,
    /// Bytes that the unfinished reply has taken so far.
    taken: usize,
    /// Unfinished arrays: how many elements are missing, and those that are there.
    open: Vec<(usize, Vec<Value>)>,
}

impl Decoder {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.buf.drain(..self.at);
            self.scanned = self.scanned.saturating_sub(self.at);
            self.at = 0;
        }
        self.buf.extend_from_slice(bytes);
    }

    /// The next whole reply.
    pub(crate) fn next(&mut self) -> Result<Option<Value>, &'static str> {
        loop {
            let Some(mut value) = self.leaf()? else {
                let pending = self.buf.len() - self.at;
                return if self.taken + pending > REPLY_MAX {
                    Err("an answer that is too long")
                } else {
                    Ok(None)
                };
            };
            // A finished element may finish the arrays around it.
            loop {
                let Some((missing, items)) = self.open.last_mut() else {
                    self.taken = 0;
                    return Ok(Some(value));
                };
                items.push(value);
                *missing -= 1;
                if *missing > 0 {
                    break;
                }
                let (_, items) = self.open.pop().expect("there is an open array");
                value = Value::Array(items);
            }
        }
    }

    /// The next element that is not a non-empty array.
    fn leaf(&mut self) -> Result<Option<Value>, &'static str> {
        loop {
            let Some((kind, line, end)) = self.line()? else { return Ok(None) };
            match kind {
                b'+' => return Ok(Some(Value::Simple(self.take(line, end)))),
                b'-' => return Ok(Some(Value::Error(self.take(line, end)))),
                b':' => {
                    let n = number(&self.buf[line.0..line.1])?;
                    self.take(line, end);
                    return Ok(Some(Value::Int(n)));
                }
                b'$' => {
                    let n = number(&self.buf[line.0..line.1])?;
                    return self.bulk(n, end);
                }
                b'*' => {
                    let n = number(&self.buf[line.0..line.1])?;
                    self.take(line, end);
                    match usize::try_from(n) {
                        Err(_) => return Ok(Some(Value::Nil)),
                        Ok(0) => return Ok(Some(Value::Array(Vec::new()))),
                        Ok(n) if n > REPLY_MAX / 4 => return Err("an array that is too long"),
                        Ok(_) if self.open.len() >= DEPTH_MAX => {
                            return Err("an answer that is nested too deeply");
                        }
                        Ok(n) => self.open.push((n, Vec::new())),
                    }
                }
                _ => return Err("an answer that is not RESP"),
            }
        }
    }

    /// The first byte of the next element, where its line is, and where the next thing begins.
    #[allow(clippy::type_complexity)]
    fn line(&mut self) -> Result<Option<(u8, (usize, usize), usize)>, &'static str> {
        let from = self.scanned.max(self.at);
        match memchr::memchr(b'\n', &self.buf[from..]).map(|i| from + i) {
            Some(end) if end > self.at + 1 && self.buf[end - 1] == b'\r' => {
                self.scanned = self.at;
                Ok(Some((self.buf[self.at], (self.at + 1, end - 1), end + 1)))
            }
            Some(_) => Err("an answer that is not RESP"),
            None if self.buf.len() - self.at > LINE_MAX => Err("a line that is too long"),
            None => {
                self.scanned = self.buf.len();
                Ok(None)
            }
        }
    }

    fn bulk(&mut self, len: i64, start: usize) -> Result<Option<Value>, &'static str> {
        let Ok(len) = usize::try_from(len) else {
            self.take((start, start), start);
            return Ok(Some(Value::Nil));
        };
        if len > REPLY_MAX {
            return Err("an answer that is too long");
        }
        let end = start + len;
        match self.buf.get(end..end + 2) {
            None => Ok(None),
            Some(b"\r\n") => Ok(Some(Value::Bulk(self.take((start, end), end + 2)))),
            Some(_) => Err("an answer that is not RESP"),
        }
    }

    fn take(&mut self, (from, to): (usize, usize), end: usize) -> Vec<u8> {
        let bytes = self.buf[from..to].to_vec();
        self.taken += end - self.at;
        (self.at, self.scanned) = (end, end);
        bytes
    }
}

fn number(line: &[u8]) -> Result<i64, &'static str> {
    core::str::from_utf8(line).ok().and_then(|s| s.parse().ok()).ok_or("a length that is not a number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(v: &Value, out: &mut Vec<u8>) {
        let line = |c: char, b: &[u8], out: &mut Vec<u8>| {
            out.push(c as u8);
            out.extend_from_slice(b);
            out.extend_from_slice(b"\r\n");
        };
        match v {
            Value::Simple(b) => line('+', b, out),
            Value::Error(b) => line('-', b, out),
            Value::Int(n) => line(':', alloc::format!("{n}").as_bytes(), out),
            Value::Bulk(b) => {
                line('$', alloc::format!("{}", b.len()).as_bytes(), out);
                out.extend_from_slice(b);
                out.extend_from_slice(b"\r\n");
            }
            Value::Nil => line('$', b"-1", out),
            Value::Array(items) => {
                line('*', alloc::format!("{}", items.len()).as_bytes(), out);
                items.iter().for_each(|i| write(i, out));
            }
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = || proptest::collection::vec(32u8..127, 0..8);
        let leaf = prop_oneof![
            text().prop_map(Value::Simple),
            text().prop_map(Value::Error),
            any::<i64>().prop_map(Value::Int),
            proptest::collection::vec(any::<u8>(), 0..12).prop_map(Value::Bulk),
            Just(Value::Nil),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| proptest::collection::vec(inner, 0..5).prop_map(Value::Array))
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_values(values in proptest::collection::vec(value(), 1..6), cut in 1usize..20) {
            let mut bytes = Vec::new();
            values.iter().for_each(|v| write(v, &mut bytes));
            let (mut d, mut got) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(cut) {
                d.feed(piece);
                while let Some(v) = d.next().unwrap() {
                    got.push(v);
                }
            }
            prop_assert_eq!(got, values);
        }

        #[test]
        fn garbage_is_an_error_or_a_value_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut d = Decoder::default();
            d.feed(&bytes);
            while let Ok(Some(_)) = d.next() {}
        }
    }

    #[test]
    fn an_endless_answer_is_refused_at_the_limit() {
        let mut d = Decoder::default();
        d.feed(b"*100000\r\n");
        let element = alloc::format!("$1000\r\n{}\r\n", "x".repeat(1000));
        let refused = (0..2000).any(|_| {
            d.feed(element.as_bytes());
            d.next().is_err()
        });
        assert!(refused && d.buf.len() < 2 * REPLY_MAX);
        let mut d = Decoder::default();
        d.feed(&alloc::vec![b'x'; LINE_MAX + 2]);
        assert!(d.next().is_err());
        let mut d = Decoder::default();
        d.feed("*1\r\n".repeat(9).as_bytes());
        assert!(d.next().is_err());
    }
}
