//! What is read to where it is kept.
use super::*;
use crate::policy::Limits;
use crate::resp::scan::{RequestScan, RequestStep};
use proptest::prelude::*;

impl Rig {
    /// Reads of a client what comes, as the shell does; returns how many times in place.
    pub(super) fn says_bytes(&mut self, c: ClientId, mut bytes: &[u8]) -> usize {
        let mut in_place = 0;
        while !bytes.is_empty() {
            let dst = Dst::Client(c);
            match self.w.read_room(dst) {
                Some(room) => {
                    let n = room.len().min(bytes.len());
                    room[..n].copy_from_slice(&bytes[..n]);
                    self.w.filled(self.now, dst, n);
                    (bytes, in_place) = (&bytes[n..], in_place + 1);
                }
                None => {
                    self.w.read(self.now, dst, bytes);
                    bytes = &[];
                }
            }
            self.effects();
        }
        in_place
    }

    /// The server answers all that it is asked.
    fn served(&mut self, up: UpId) -> String {
        let asked = self.w.gather(self.now, Dst::Up(up)).to_vec();
        self.w.wrote(self.now, Dst::Up(up), asked.len());
        let (mut scan, mut at) = (RequestScan::default(), 0);
        while let Ok(RequestStep::Array { len }) = scan.next(&asked[at..], &Limits::default(), false) {
            at += len;
            self.answers(up, "+OK|");
        }
        assert_eq!(at, asked.len());
        shown(&asked)
    }

    /// A client that sends large requests over a shared connection.
    fn with_large(limits: impl FnOnce(&mut Policy)) -> (Rig, ClientId, UpId) {
        let mut r = Rig::new(limits);
        r.grant();
        let c = r.client();
        r.says(c, "*3|$3|SET|$1|k|$5|first|");
        let up = r.up();
        r.asked(up);
        r.answers(up, "+OK|");
        assert_eq!(r.hears(c), "+OK|");
        (r, c, up)
    }
}

#[test]
fn a_large_request_is_queued_where_it_was_read() {
    let (mut r, c, up) = Rig::with_large(|p| p.limits.in_place_from = 10);
    let request = wire("*3|$3|SET|$1|k|$6|second|");
    assert_eq!(r.says_bytes(c, &request), 1);
    assert_eq!(r.asked(up), shown(&request));
    r.answers(up, "+OK|");
    assert_eq!(r.hears(c), "+OK|");
}

#[test]
fn small_requests_are_read_as_ever() {
    let (mut r, c, up) = Rig::with_large(|_| {});
    assert_eq!(r.says_bytes(c, &wire("*2|$3|GET|$1|k|")), 0);
    assert_eq!(r.asked(up), "*2|$3|GET|$1|k|");
}

#[test]
fn what_was_read_in_place_waits_at_a_closed_gate_like_all() {
    let (mut r, c, up) = Rig::with_large(|p| p.limits.in_place_from = 10);
    r.hold(true);
    assert_eq!(r.says_bytes(c, &wire("*3|$3|SET|$1|k|$6|second|")), 1);
    assert_eq!((r.asked(up), r.hears(c)), (String::new(), String::new()));
    r.release();
    assert_eq!(r.asked(up), "*3|$3|SET|$1|k|$6|second|");
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    let bulk = |n: usize, b: u8| {
        let mut bytes = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${n}\r\n").into_bytes();
        bytes.extend(core::iter::repeat_n(b, n));
        bytes.extend(b"\r\n");
        bytes
    };
    prop_oneof![
        4 => (0usize..80, any::<u8>()).prop_map(move |(n, b)| bulk(n, b)),
        1 => Just(b"GET k\r\n".to_vec()),
        1 => Just(b"*0\r\n".to_vec()),
    ]
}

proptest! {
    /// However it is split, the server is asked the same as when nothing is read in place.
    #[test]
    fn where_it_is_read_changes_nothing(
        commands in prop::collection::vec(command(), 1..20),
        cuts in prop::collection::vec(1usize..200, 0..20),
        bad in any::<bool>(),
    ) {
        let mut all = commands.concat();
        if bad {
            all.extend(b"*1\r\n!bad\r\n");
        }
        let play = |from: usize| {
            let (mut r, c, up) = Rig::with_large(|p| p.limits.in_place_from = from);
            let (mut rest, mut cuts, mut in_place) = (&all[..], cuts.iter(), 0);
            let mut heard = String::new();
            let mut asked = String::new();
            while !rest.is_empty() {
                let n = cuts.next().copied().unwrap_or(usize::MAX).min(rest.len());
                in_place += r.says_bytes(c, &rest[..n]);
                rest = &rest[n..];
                asked += &r.served(up);
                heard += &r.hears(c);
            }
            (asked, heard, in_place)
        };
        let (as_ever, in_place) = (play(usize::MAX), play(0));
        prop_assert_eq!(as_ever.2, 0);
        prop_assert_eq!((in_place.0, in_place.1), (as_ever.0, as_ever.1));
    }
}
