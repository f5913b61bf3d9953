//! RESP as the model clients and servers speak it: small, slow, and independent of the product's framing.

/// A reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    /// `+text`
    Simple(String),
    /// `-text`
    Error(String),
    /// `:n`
    Int(i64),
    /// `$n bytes`
    Bulk(Vec<u8>),
    /// A null of any kind.
    Nil,
    /// `*n`, `~n`
    Array(Vec<Value>),
    /// `%n`, keys and values in turn.
    Map(Vec<Value>),
    /// `>n`
    Push(Vec<Value>),
}

impl Value {
    /// Whether it is a bulk string with these bytes.
    pub(crate) fn is_bulk(&self, bytes: &[u8]) -> bool {
        matches!(self, Value::Bulk(b) if b == bytes)
    }
}

fn line(buf: &[u8]) -> Option<(&str, usize)> {
    let end = buf.windows(2).position(|w| w == b"\r\n")?;
    Some((std::str::from_utf8(&buf[1..end]).unwrap_or("?"), end + 2))
}

/// The reply at the front of `buf` and its length; `None` if it is not complete.
pub(crate) fn reply(buf: &[u8]) -> Result<Option<(Value, usize)>, String> {
    let Some(&kind) = buf.first() else { return Ok(None) };
    if !b"+-:$*%>~_".contains(&kind) {
        return Err(format!("not a reply: {}", buf[..buf.len().min(60)].escape_ascii()));
    }
    let Some((text, head)) = line(buf) else { return Ok(None) };
    let number = || text.parse::<i64>().map_err(|_| format!("not a number: {text}"));
    Ok(Some(match kind {
        b'+' => (Value::Simple(text.into()), head),
        b'-' => (Value::Error(text.into()), head),
        b':' => (Value::Int(number()?), head),
        b'_' => (Value::Nil, head),
        b'$' => {
            let n = number()?;
            if n < 0 {
                return Ok(Some((Value::Nil, head)));
            }
            let end = head + n as usize;
            if buf.len() < end + 2 {
                return Ok(None);
            }
            if &buf[end..end + 2] != b"\r\n" {
                return Err("a bulk string does not end".into());
            }
            (Value::Bulk(buf[head..end].to_vec()), end + 2)
        }
        _ => {
            let n = number()?;
            if n < 0 {
                return Ok(Some((Value::Nil, head)));
            }
            let n = if kind == b'%' { n * 2 } else { n };
            let (mut at, mut all) = (head, Vec::new());
            for _ in 0..n {
                let Some((v, len)) = reply(&buf[at..])? else { return Ok(None) };
                at += len;
                all.push(v);
            }
            let value = match kind {
                b'%' => Value::Map(all),
                b'>' => Value::Push(all),
                _ => Value::Array(all),
            };
            (value, at)
        }
    }))
}

/// A request's arguments.
pub(crate) type Args = Vec<Vec<u8>>;

/// The request at the front of `buf` (arrays only) and its length; `None` if it is not complete.
pub(crate) fn request(buf: &[u8]) -> Result<Option<(Args, usize)>, String> {
    match buf.first() {
        None => return Ok(None),
        Some(b'*') => {}
        Some(_) => return Err(format!("not a request: {}", buf[..buf.len().min(60)].escape_ascii())),
    }
    Ok(match reply(buf)? {
        None => None,
        Some((Value::Array(args), len)) => {
            let bulk = |v| match v {
                Value::Bulk(b) => Ok(b),
                v => Err(format!("not an argument: {v:?}")),
            };
            Some((args.into_iter().map(bulk).collect::<Result<_, _>>()?, len))
        }
        Some((v, _)) => return Err(format!("not a request: {v:?}")),
    })
}

/// A request's bytes.
pub(crate) fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + args.iter().map(|a| a.len() + 8).sum::<usize>());
    head(&mut out, b'*', args.len());
    for arg in args {
        bulk(&mut out, arg);
    }
    out
}

/// Appends a bulk string.
pub(crate) fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    head(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number behind its kind.
pub(crate) fn head(out: &mut Vec<u8>, kind: u8, n: usize) {
    out.push(kind);
    digits(out, n);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number.
pub(crate) fn digits(out: &mut Vec<u8>, n: usize) {
    if n >= 10 {
        digits(out, n / 10);
    }
    out.push(b'0' + (n % 10) as u8);
}

/// Which client's command a request is: commands carry an argument `t:<client>:<number>:…`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Tag {
    /// The client.
    pub(crate) client: u32,
    /// The command's place in all that the client says.
    pub(crate) seq: u32,
}

/// The tag that an argument begins with.
pub(crate) fn tag_of(arg: &[u8]) -> Option<Tag> {
    let text = std::str::from_utf8(arg.get(..arg.len().min(24))?).ok()?;
    let mut parts = text.strip_prefix("t:")?.split(':');
    let tag = Tag { client: parts.next()?.parse().ok()?, seq: parts.next()?.parse().ok()? };
    parts.next()?;
    Some(tag)
}

/// The tag of a request.
pub(crate) fn tag(args: &[Vec<u8>]) -> Option<Tag> {
    args.iter().find_map(|a| tag_of(a))
}

/// What a command does, as the model understands it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// May change data.
    Write,
    /// Reads data.
    Read,
    /// Touches no data.
    Neither,
}

/// What the command of this name does.
pub(crate) fn access(name: &[u8]) -> Access {
    match name.to_ascii_uppercase().as_slice() {
        b"GET" | b"MGET" | b"LRANGE" => Access::Read,
        b"PING" | b"ECHO" | b"ROLE" | b"COMMAND" | b"AUTH" | b"HELLO" | b"SELECT" | b"CLIENT" | b"MULTI"
        | b"DISCARD" | b"WATCH" | b"UNWATCH" | b"SUBSCRIBE" | b"UNSUBSCRIBE" | b"PSUBSCRIBE"
        | b"PUNSUBSCRIBE" | b"MONITOR" | b"QUIT" | b"RESET" => Access::Neither,
        _ => Access::Write,
    }
}
