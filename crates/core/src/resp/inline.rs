//! Inline requests: split as Redis splits them (`sdssplitargs` in `sds.c`), and written again as an array, because a
//! shared connection must never see a line whose quotes do not match.
use super::reply;
use super::scan::Malformed;
use alloc::vec::Vec;

/// The request `line` as an array of bulk strings; `None` if it is empty (which gets no reply).
pub fn to_array(line: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let args = split(line)?;
    if args.is_empty() {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(line.len() + 16 * args.len());
    reply::request(&mut out, &args);
    Ok(Some(out))
}

fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut args = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() || rest[0] == 0 {
            return Ok(args);
        }
        let (arg, after) = argument(rest)?;
        args.push(arg);
        rest = after;
    }
}

fn argument(mut s: &[u8]) -> Result<(Vec<u8>, &[u8]), Malformed> {
    let mut arg = Vec::new();
    loop {
        match s {
            [] | [b' ' | b'\n' | b'\r' | b'\t' | 0, ..] => return Ok((arg, s)),
            [quote @ (b'"' | b'\''), after @ ..] => {
                let after = quoted(*quote, after, &mut arg)?;
                // A closing quote must be followed by a space or nothing at all.
                return match after {
                    [] => Ok((arg, after)),
                    [c, ..] if c.is_ascii_whitespace() || *c == 0x0b => Ok((arg, after)),
                    _ => Err(Malformed::Quotes),
                };
            }
            [c, after @ ..] => {
                arg.push(*c);
                s = after;
            }
        }
    }
}

fn quoted<'a>(quote: u8, mut s: &'a [u8], arg: &mut Vec<u8>) -> Result<&'a [u8], Malformed> {
    loop {
        match s {
            [] => return Err(Malformed::Quotes),
            [b'\\', b'x', hi, lo, after @ ..]
                if quote == b'"' && hi.is_ascii_hexdigit() && lo.is_ascii_hexdigit() =>
            {
                arg.push(hex(*hi) << 4 | hex(*lo));
                s = after;
            }
            [b'\\', c, after @ ..] if quote == b'"' => {
                arg.push(match c {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                s = after;
            }
            [b'\\', b'\'', after @ ..] if quote == b'\'' => {
                arg.push(b'\'');
                s = after;
            }
            [c, after @ ..] if *c == quote => return Ok(after),
            [c, after @ ..] => {
                arg.push(*c);
                s = after;
            }
        }
    }
}

fn hex(c: u8) -> u8 {
    match c {
        b'0'..=b'9' => c - b'0',
        b'a'..=b'f' => c - b'a' + 10,
        _ => c - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Result<Vec<Vec<u8>>, Malformed> {
        split(line.as_bytes())
    }

    #[test]
    fn lines_split_as_redis_splits_them() {
        assert_eq!(args("set  a 1\r\n"), Ok([b"set".to_vec(), b"a".into(), b"1".into()].into()));
        assert_eq!(
            args("x \"a \\x41\\n\\q\" 'it\\'s'\n"),
            Ok([b"x".to_vec(), b"a A\nq".into(), b"it's".into()].into())
        );
        assert_eq!(args("\r\n"), Ok(Vec::new()));
        assert_eq!(args("a\"b\"\n"), Ok([b"ab".to_vec()].into()));
    }

    #[test]
    fn quotes_must_match() {
        for bad in ["a \"b\n", "a 'b\n", "\"a\"b\n", "'a'b\n"] {
            assert_eq!(args(bad), Err(Malformed::Quotes), "{bad}");
        }
    }

    #[test]
    fn a_line_becomes_an_array() {
        assert_eq!(to_array(b"PING\r\n"), Ok(Some(b"*1\r\n$4\r\nPING\r\n".to_vec())));
        assert_eq!(to_array(b"  \r\n"), Ok(None));
    }
}
