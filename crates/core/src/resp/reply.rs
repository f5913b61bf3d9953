//! What Pointsman says: every error that a client can see, and the few replies that it makes itself.
//!
//! `-MASTERDOWN` is only ever said of a command that was certainly not executed; `-UNCERTAIN` of one whose outcome
//! cannot be known; `-NOTDURABLE` of a durable write that the master has executed and replicas are not known to have;
//! `-REFUSED` of one that is not forwarded.
use super::Proto;
use super::frame::Request;
use super::scan::Malformed;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// `+OK`.
pub const OK: &[u8] = b"+OK\r\n";
/// The reply to `RESET`.
pub const RESET: &[u8] = b"+RESET\r\n";
/// The reply to a command that a transaction queues.
pub const QUEUED: &[u8] = b"+QUEUED\r\n";
/// The master changed while a command was under way whose effect cannot be known.
pub const UNCERTAIN: &[u8] =
    b"-UNCERTAIN the connection to the master was lost before its reply: the command may or may not have been executed\r\n";
/// The master changed, and its successor is not known to have a write that was executed.
pub const UNPROVEN: &[u8] =
    b"-UNCERTAIN the command was executed while the master was changing: whether its successor has the write is not known\r\n";
/// A durable write's connection was lost before replicas were known to have it.
pub const NOT_DURABLE_LOST: &[u8] =
    b"-NOTDURABLE the write was executed on the master, but the connection was lost before replicas were known to have it\r\n";
/// Said at `EXEC` of a transaction whose connection was lost before it.
pub const EXECABORT_SWITCH: &[u8] =
    b"-EXECABORT Transaction discarded because the connection to the master was lost before EXEC\r\n";
/// Said at `EXEC` of a transaction in which a command was refused.
pub const EXECABORT_REFUSED: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
/// Said to a `WAIT` for writes of an earlier master.
pub const WAIT_LOST: &[u8] =
    b"-UNCERTAIN the master has changed since this session's last write: its replication cannot be waited for\r\n";
/// Said to a `WAIT` of a user who may not publish.
pub const WAIT_DENIED: &[u8] =
    b"-ERR WAIT through Pointsman needs the permission to PUBLISH on the channel pointsman:wait\r\n";
/// What `CLIENT KILL ip:port` says when there is no such client (`clientCommand` in `networking.c`).
pub const NO_SUCH_CLIENT: &[u8] = b"-ERR No such client\r\n";
/// Said to a `CLIENT KILL` in a transaction.
pub const KILL_IN_TX: &[u8] = b"-ERR CLIENT KILL in a transaction is not possible through Pointsman\r\n";
/// All pinned connections are in use.
pub const PINNED_MAX: &[u8] =
    b"-ERR too many sessions need a connection of their own (Pointsman: pinned), try again later\r\n";
/// All shared connections are in use, and none is of the user, database and protocol that is needed.
pub const SHARED_MAX: &[u8] =
    b"-ERR too many users, databases and protocols are in use at once (Pointsman: shared), try again later\r\n";

// What Pointsman says as a server would, to clients that authenticate to Pointsman (`users`). From `server.c`, `acl.c` and
// `networking.c` of Redis 7.0.

/// A command of who has not authenticated.
pub const NOAUTH: &[u8] = b"-NOAUTH Authentication required.\r\n";
/// A user or a password that is wrong.
pub const WRONGPASS: &[u8] = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
/// `AUTH password`, where the user `default` has none.
pub const AUTH_WITHOUT_PASSWORD: &[u8] = b"-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n";
/// Arguments that make no sense.
pub const SYNTAX: &[u8] = b"-ERR syntax error\r\n";
/// A command that is not allowed between `MULTI` and `EXEC`.
pub const NOT_IN_TX: &[u8] = b"-ERR Command not allowed inside a transaction\r\n";
/// `HELLO` without `AUTH`, of who has not authenticated.
pub const HELLO_NOAUTH: &[u8] = b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n";
/// `HELLO` with a version that is no number.
pub const HELLO_VERSION: &[u8] = b"-ERR Protocol version is not an integer or out of range\r\n";
/// `HELLO` with a version that does not exist.
pub const NOPROTO: &[u8] = b"-NOPROTO unsupported protocol version\r\n";
/// `HELLO … SETNAME` with such a name.
pub const BAD_NAME: &[u8] = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n";

/// An `EXEC` that is refused with this error (`execCommandAbort` in `multi.c`).
pub fn exec_rejected(error: &[u8]) -> Vec<u8> {
    let why = error.strip_prefix(b"-").unwrap_or(error);
    let why = why.strip_prefix(b"ERR ").unwrap_or(why);
    [b"-EXECABORT Transaction discarded because of: ", why].concat()
}

/// `HELLO` with an option that it does not have, or that has too few arguments.
pub fn hello_option(option: &[u8]) -> Vec<u8> {
    [&b"-ERR Syntax error in HELLO option '"[..], &in_line(option, usize::MAX), b"'\r\n"].concat()
}

/// A command, by its name in the table, with too few or too many arguments.
pub fn wrong_arity(command: &str) -> Vec<u8> {
    format!("-ERR wrong number of arguments for '{}' command\r\n", command.to_ascii_lowercase()).into_bytes()
}

/// A command, by its name in the table, that a subscriber of RESP2 may not use.
pub fn subscribed(command: &str) -> Vec<u8> {
    format!(
        "-ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n",
        command.to_ascii_lowercase()
    )
    .into_bytes()
}

/// `-MASTERDOWN` with the reason.
pub fn masterdown(service: &str, why: &str) -> Vec<u8> {
    format!(
        "-MASTERDOWN no master for service '{}': {}; the command was not executed\r\n",
        line(service),
        line(why)
    )
    .into_bytes()
}

/// `-NOTDURABLE`: so many replicas had to have a write, and what the master said instead.
pub fn not_durable(replicas: u32, said: &str) -> Vec<u8> {
    format!(
        "-NOTDURABLE the write was executed on the master, but is not known to be on {replicas} of its replicas: {}\r\n",
        line(said)
    )
    .into_bytes()
}

/// A filter of `CLIENT KILL` that the server knows.
pub fn unknown_filter(word: &[u8]) -> Vec<u8> {
    let word = String::from_utf8_lossy(word);
    format!("-ERR Pointsman cannot tell which of its clients CLIENT KILL {} means\r\n", line(&word))
        .into_bytes()
}

/// A command that is refused by default, and what would allow it.
pub fn refused(command: &str, service: &str) -> Vec<u8> {
    format!(
        "-REFUSED '{}' is not forwarded by Pointsman; to allow it add \"{}\" to the setting 'allow' of service '{}'\r\n",
        command.replace('|', " "),
        command,
        line(service),
    )
    .into_bytes()
}

/// A command of a session whose replies are not counted, that would have to be answered by us.
pub fn uncounted(command: &str) -> Vec<u8> {
    format!("-REFUSED '{command}' is not possible through Pointsman in a session of MONITOR, CLIENT REPLY or the like\r\n")
        .into_bytes()
}

/// A command that the service's own configuration denies.
pub fn denied(command: &str, service: &str) -> Vec<u8> {
    format!(
        "-REFUSED '{}' is not forwarded by Pointsman: the setting 'deny' of service '{}' forbids it\r\n",
        line(command),
        line(service),
    )
    .into_bytes()
}

/// A command that clients must know by another name, in Redis' words (`processCommand` in `server.c`).
pub fn unknown_command(req: Request<'_>) -> Vec<u8> {
    const SHOWN_MAX: usize = 128;
    let mut args = Vec::new();
    for arg in req.args().skip(1) {
        if args.len() >= SHOWN_MAX {
            break;
        }
        let shown = in_line(arg, SHOWN_MAX - args.len());
        args.extend([&b"'"[..], &shown, b"' "].concat());
    }
    let name = in_line(req.name(), SHOWN_MAX);
    [&b"-ERR unknown command '"[..], &name, b"', with args beginning with: ", &args, b"\r\n"].concat()
}

/// The error for a malformed request, in Redis' words.
pub fn protocol_error(m: Malformed) -> Vec<u8> {
    match m {
        Malformed::ExpectedBulk(b) => {
            let mut out = b"-ERR Protocol error: expected '$', got '".to_vec();
            // Redis' sanitizing of control characters in error replies (`afterErrorReply`, `addReplyErrorFormat`).
            out.push(if matches!(b, b'\r' | b'\n') { b' ' } else { b });
            out.extend_from_slice(b"'\r\n");
            out
        }
        other => format!("-ERR Protocol error: {}\r\n", other.text()).into_bytes(),
    }
}

/// A bulk string.
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// An integer.
pub fn integer(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(format!(":{n}\r\n").as_bytes());
}

/// A null, as `EXEC` gives it when a watched key changed.
pub fn null_array(out: &mut Vec<u8>, proto: Proto) {
    out.extend_from_slice(match proto {
        Proto::Resp2 => b"*-1\r\n",
        Proto::Resp3 => b"_\r\n",
    });
}

/// A null, in the place of a bulk string.
pub fn null_bulk(out: &mut Vec<u8>, proto: Proto) {
    out.extend_from_slice(match proto {
        Proto::Resp2 => b"$-1\r\n",
        Proto::Resp3 => b"_\r\n",
    });
}

/// A request, as an array of bulk strings.
pub fn request<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    header(out, b'*', args.len());
    for arg in args {
        bulk(out, arg.as_ref());
    }
}

fn header(out: &mut Vec<u8>, kind: u8, n: usize) {
    out.extend_from_slice(format!("{}{n}\r\n", char::from(kind)).as_bytes());
}

/// An argument as Redis shows it in an error: a string of C, without what would end the line.
fn in_line(arg: &[u8], most: usize) -> Vec<u8> {
    let arg = arg.split(|b| *b == 0).next().unwrap_or_default();
    arg.iter().take(most).map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }).collect()
}

/// `text` without what would end a line of RESP.
fn line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_command_is_told_as_the_server_tells_it() {
        let said = |args: &[&[u8]]| {
            let mut bytes = Vec::new();
            request(&mut bytes, args);
            String::from_utf8(unknown_command(Request::new(&bytes))).unwrap()
        };
        assert_eq!(
            said(&[b"nosuch", b"a", b"b\0c"]),
            "-ERR unknown command 'nosuch', with args beginning with: 'a' 'b' \r\n"
        );
        assert_eq!(said(&[b"x\r\ny"]), "-ERR unknown command 'x  y', with args beginning with: \r\n");
        let long = [b'a'; 200];
        let begins = "with args beginning with: ";
        let shown = said(&[b"x", &long, b"b"]).split_once(begins).unwrap().1.len();
        assert_eq!(shown, 128 + "'' \r\n".len());
    }

    #[test]
    fn an_error_is_always_one_line() {
        let text = masterdown("a\r\nb", "x\ny");
        assert_eq!(memchr::memchr_iter(b'\n', &text).count(), 1);
        assert!(text.starts_with(b"-MASTERDOWN "));
        assert_eq!(
            protocol_error(Malformed::ExpectedBulk(b'x')),
            b"-ERR Protocol error: expected '$', got 'x'\r\n".to_vec()
        );
    }
}
