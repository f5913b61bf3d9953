//! Where a server speaks of the connection that asks, and the client must hear of its own session instead: `CLIENT INFO`,
//! `HELLO` and what else tells an id. The server is asked all the same: its version decides what there is to say, its ACL
//! whether it is said.
use crate::Now;
use crate::resp::frame::{Element, Elements};
use crate::resp::{parse_i64, reply};
use crate::session::{Names, Session};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A reply in which an integer follows the word `key`: with `id` in its place, if the server names a connection there
/// (0 and less name none).
pub fn with_id(frame: &[u8], key: &[u8], id: u64) -> Vec<u8> {
    let mut elements = Elements::of(frame);
    while let Some(e) = elements.next() {
        if e == Element::Bulk(key) {
            let before = frame.len() - elements.rest().len();
            if let Some(Element::Line(b':', old)) = elements.next()
                && parse_i64(old).is_some_and(|old| old > 0)
            {
                let mut out = frame[..before].to_vec();
                reply::integer(&mut out, id);
                out.extend_from_slice(elements.rest());
                return out;
            }
        }
    }
    frame.to_vec()
}

/// The reply to `CLIENT GETREDIR`, with the id of the session that is told in the place of its connection's.
pub fn getredir(frame: &[u8], s: &Session) -> Vec<u8> {
    let mut out = Vec::new();
    match (Elements::of(frame).next(), &s.tracking) {
        (Some(Element::Line(b':', n)), Some(t)) if parse_i64(n).is_some_and(|n| n > 0) => {
            reply::integer(&mut out, t.redirect);
        }
        _ => out.extend_from_slice(frame),
    }
    out
}

/// The reply to `CLIENT INFO` as a direct connection would get it: what is the session's own instead of what is the
/// connection's that it was asked on. `listed`: it was asked as `CLIENT LIST`. Fields that the server does not have are not
/// added; those that tell of buffers and descriptors stay the connection's. (`catClientInfoString` in `networking.c`.)
pub fn client_info(frame: &[u8], s: &Session, now: Now, listed: bool) -> Vec<u8> {
    let Some(Element::Bulk(body)) = Elements::of(frame).next() else { return frame.to_vec() };
    // A verbatim string says first what it is.
    let (format, text) = body.split_at(if frame[0] == b'=' { body.len().min(4) } else { 0 });
    let mut fields = Vec::new();
    for (i, field) in text.split(|b| *b == b' ').enumerate() {
        if i > 0 {
            fields.push(b' ');
        }
        let equals = memchr::memchr(b'=', field).unwrap_or(field.len());
        let (key, old) = field.split_at(equals);
        fields.extend_from_slice(key);
        match old.strip_prefix(b"=") {
            Some(old) => {
                let end = if old.ends_with(b"\n") { "\n" } else { "" };
                let own = own_value(s, now, listed, key, old);
                fields.push(b'=');
                match own {
                    Some(own) => fields.extend(own.bytes().chain(end.bytes())),
                    None => fields.extend_from_slice(old),
                }
            }
            None => fields.extend_from_slice(old),
        }
    }
    let mut out = format!("{}{}\r\n", char::from(frame[0]), format.len() + fields.len()).into_bytes();
    out.extend_from_slice(format);
    out.append(&mut fields);
    out.extend_from_slice(b"\r\n");
    out
}

/// What a field of `CLIENT INFO` says of the session; `None`: what the connection's own says is true of it.
fn own_value(s: &Session, now: Now, listed: bool, key: &[u8], old: &[u8]) -> Option<String> {
    let none = Names::default();
    let names = s.names.as_deref().unwrap_or(&none);
    let text = |bytes: &[u8]| Some(String::from_utf8_lossy(bytes).into_owned());
    match key {
        b"id" => Some(format!("{}", s.id)),
        b"addr" => Some(s.ends.peer()),
        b"laddr" => Some(s.ends.local()),
        b"age" => Some(format!("{}", now.since(s.since).as_secs())),
        b"name" => text(&names.name),
        b"lib-name" => text(&names.lib_name),
        b"lib-ver" => text(&names.lib_ver),
        b"cmd" if listed && old.starts_with(b"client|info") => Some("client|list".into()),
        b"redir" if parse_i64(old.trim_ascii_end()).is_some_and(|to| to > 0) => {
            s.tracking.as_ref().map(|t| format!("{}", t.redirect))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Ends;
    use core::net::{IpAddr, Ipv4Addr};
    use core::time::Duration;

    const LINE: &str = "id=812 addr=10.0.0.9:40000 laddr=10.0.0.1:6379 fd=8 name= age=900 idle=0 flags=N db=3 \
                        redir=-1 cmd=client|info user=default lib-name= lib-ver=\n";

    fn session() -> Session {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut s = Session { id: 7, ..Session::default() };
        s.ends = Ends::Tcp { peer: (here, 5), local: (IpAddr::V6(core::net::Ipv6Addr::LOCALHOST), 6379) };
        s.since = Now::from_millis(1_000);
        s.names_mut().name = b"me"[..].into();
        s.names_mut().lib_ver = b"1.0"[..].into();
        s
    }

    fn bulk(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        reply::bulk(&mut out, text.as_bytes());
        out
    }

    #[test]
    fn client_info_speaks_of_the_session() {
        let now = Now::from_millis(1_000) + Duration::from_millis(4_900);
        let own = "id=7 addr=127.0.0.1:5 laddr=[::1]:6379 fd=8 name=me age=4 idle=0 flags=N db=3 \
                   redir=-1 cmd=client|info user=default lib-name= lib-ver=1.0\n";
        assert_eq!(client_info(&bulk(LINE), &session(), now, false), bulk(own));
        let listed = own.replace("client|info", "client|list");
        assert_eq!(client_info(&bulk(LINE), &session(), now, true), bulk(&listed));
        let verbatim = |text: &str| format!("={}\r\ntxt:{text}\r\n", text.len() + 4).into_bytes();
        assert_eq!(client_info(&verbatim(LINE), &session(), now, false), verbatim(own));
        assert_eq!(client_info(b"-NOPERM no\r\n", &session(), now, false), b"-NOPERM no\r\n");
    }

    #[test]
    fn hello_tells_the_sessions_own_id() {
        let frame = b"%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:812\r\n";
        assert_eq!(with_id(frame, b"id", 7), b"%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:7\r\n");
        assert_eq!(with_id(b"*0\r\n", b"id", 7), b"*0\r\n");
        let nobody = b"%1\r\n$8\r\nredirect\r\n:-1\r\n";
        assert_eq!(with_id(nobody, b"redirect", 7), nobody);
    }
}
