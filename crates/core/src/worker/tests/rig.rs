//! What the tests of the worker share: a worker, the view that it is given, its connections, and short forms of what is
//! said on them (`|` stands for CR LF).
use super::super::*;
use crate::topology::snapshot::{Deposed, Gate, Kept, ServiceView, ShardView, SignKind, Term};
use alloc::format;
use alloc::string::String;

pub(super) const SERVICE: ServiceId = ServiceId(0);
pub(super) const ROLE: &str = "*1|$4|ROLE|";
/// Before it on a pinned connection.
pub(super) const ID: &str = "*2|$6|CLIENT|$2|ID|";
pub(super) const MASTER: &str = "*1|$6|master|";
pub(super) const READONLY: &str = "-READONLY You can't write against a read only replica.|";
pub(super) const UNBLOCKED: &str =
    "-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)|";

pub(super) struct Rig {
    pub(super) w: Worker,
    pub(super) now: Now,
    pub(super) view: ShardView,
    pub(super) version: u64,
    pub(super) opened: Vec<UpId>,
    pub(super) signs: Vec<SignKind>,
    /// How often it was told that writes flow.
    pub(super) writes_told: u32,
    pub(super) closed: Vec<Dst>,
    /// Limits for which clients were closed.
    pub(super) overrun: Vec<OutputLimit>,
    /// Connections that are only read.
    pub(super) only_read: Vec<UpId>,
    pub(super) finished: Vec<UpId>,
    /// What it asks of other workers, and what it answers them.
    pub(super) asks: Vec<Inquiry>,
    pub(super) finds: Vec<(usize, Finding)>,
    /// Those of them to which all must have come.
    pub(super) arrived: Vec<UpId>,
    /// The connection on which `AUTH` is tried.
    pub(super) probe: UpId,
    /// Whether connections can be made.
    pub(super) reachable: bool,
}

pub(super) fn wire(text: &str) -> Vec<u8> {
    text.replace('|', "\r\n").into_bytes()
}

pub(super) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "|")
}

impl Rig {
    pub(super) fn new(change: impl FnOnce(&mut Policy)) -> Rig {
        Rig::one_of(1, 1, change)
    }

    /// The `n`th worker of so many in a process.
    pub(super) fn one_of(n: u64, all: u64, change: impl FnOnce(&mut Policy)) -> Rig {
        let mut policy = Policy::new(SERVICE, "s");
        change(&mut policy);
        let mut w = Worker::new(n, all);
        w.configure(Now::ZERO, &[Arc::new(policy)]);
        let view = ShardView::unknown(Now::ZERO, Duration::from_secs(1));
        let (opened, signs, closed, overrun, only_read, arrived) = Default::default();
        Rig {
            w,
            now: Now::from_millis(1),
            view,
            version: 0,
            opened,
            signs,
            writes_told: 0,
            closed,
            overrun,
            only_read,
            finished: Vec::new(),
            asks: Vec::new(),
            finds: Vec::new(),
            arrived,
            probe: UpId::default(),
            reachable: true,
        }
    }

    pub(super) fn publish(&mut self) {
        self.version += 1;
        let shards = [Arc::new(self.view.clone())].into();
        let services = [ServiceView { id: SERVICE, shards }].into();
        self.w.snapshot(self.now, Arc::new(Snapshot { version: self.version, services }));
        self.effects();
    }

    pub(super) fn grant(&mut self) {
        self.switch_to("m");
    }

    /// Another node is master.
    pub(super) fn switch_to(&mut self, node: &str) {
        self.view.master = Some(Endpoint::Unix(node.into()));
        self.view.term = Term(self.view.term.0 + 1);
        (self.view.writes, self.view.reads) = (Gate::Open, Gate::Open);
        self.prove();
    }

    /// Another node is granted; the present master answers, and is to be told to follow.
    pub(super) fn depose(&mut self) {
        self.view.deposed = self.view.master.clone().map(|at| Deposed { at, to_be_told: true });
        self.switch_to("n");
    }

    /// The master is proven (again).
    pub(super) fn prove(&mut self) {
        self.pass(1);
        self.view.proven_at = self.now;
        self.publish();
    }

    /// Time passes.
    pub(super) fn pass(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        self.w.timeout_if_due(self.now);
        self.effects();
    }

    pub(super) fn effects(&mut self) {
        while let Some(effect) = self.w.poll() {
            match effect {
                Effect::Connect(id, _) => {
                    self.opened.push(id);
                    self.w.connected(self.now, id, self.reachable);
                }
                Effect::Tell(Event::Sign(sign)) => self.signs.push(sign.kind),
                Effect::Tell(Event::Writes(_)) => self.writes_told += 1,
                Effect::Tell(Event::Overrun { limit, .. }) => self.overrun.push(limit),
                Effect::Close(dst, _) => self.closed.push(dst),
                Effect::OnlyRead(id) => self.only_read.push(id),
                Effect::Finish(id) => self.finished.push(id),
                Effect::Ask(inquiry) => self.asks.push(inquiry),
                Effect::Found { to, finding } => self.finds.push((to, finding)),
                Effect::Arrived(id) => self.arrived.push(id),
                _ => {}
            }
        }
        self.w.audit().expect("all parts agree");
    }

    pub(super) fn client(&mut self) -> ClientId {
        self.w.accepted(self.now, SERVICE, false, Ends::Unknown).expect("there is room")
    }

    pub(super) fn says(&mut self, c: ClientId, text: &str) {
        self.w.read(self.now, Dst::Client(c), &wire(text));
        self.effects();
    }

    pub(super) fn answers(&mut self, up: UpId, text: &str) {
        self.w.read(self.now, Dst::Up(up), &wire(text));
        self.effects();
    }

    /// All that is to be written to a stream is.
    pub(super) fn written(&mut self, dst: Dst) -> String {
        let bytes = self.w.gather(self.now, dst).to_vec();
        self.w.wrote(self.now, dst, bytes.len());
        self.effects();
        shown(&bytes)
    }

    pub(super) fn hears(&mut self, c: ClientId) -> String {
        self.written(Dst::Client(c))
    }

    pub(super) fn asked(&mut self, up: UpId) -> String {
        self.written(Dst::Up(up))
    }

    /// The newest connection is set up.
    pub(super) fn up(&mut self) -> UpId {
        let up = *self.opened.last().expect("one was opened");
        self.set_up(up, MASTER);
        up
    }

    /// A connection is set up; this is its server's answer to `ROLE`. Its id is 100, or so many more as connections were
    /// opened before it.
    pub(super) fn set_up(&mut self, up: UpId, role: &str) {
        let setup = self.asked(up);
        assert!(setup.ends_with(ROLE), "{setup}");
        let n = 100 + self.opened.iter().position(|o| *o == up).expect("it was opened");
        let hello = if setup.contains("HELLO") { "%0|" } else { "" };
        let id = if setup.contains(ID) { format!(":{n}|") } else { String::new() };
        self.answers(up, &format!("{hello}{id}{role}"));
    }

    pub(super) fn hold(&mut self, reads: bool) {
        let hold = Gate::Hold { since: self.now, until: self.now + Duration::from_secs(1) };
        self.view.writes = hold;
        if reads {
            self.view.reads = hold;
        }
        self.publish();
    }

    /// Who comes after the present master has its stream up to `offset`.
    pub(super) fn keep(&mut self, offset: u64) {
        self.view.kept = Some(Kept { term: self.view.term, offset });
        self.publish();
    }

    /// A client whose `SET` is under way when the gates close.
    pub(super) fn under_way(&mut self, says: &str) -> (ClientId, UpId) {
        self.grant();
        let c = self.client();
        self.says(c, says);
        let up = self.up();
        self.asked(up);
        self.hold(true);
        assert_eq!(self.asked(up), ROLE);
        (c, up)
    }

    /// The newest connection breaks.
    pub(super) fn loses(&mut self, up: UpId) {
        self.w.gone(self.now, Dst::Up(up));
        self.effects();
    }

    pub(super) fn is_closed(&self, c: ClientId) -> bool {
        self.closed.contains(&Dst::Client(c))
    }

    /// A client that is subscribed to these channels, and its connection.
    pub(super) fn subscriber(&mut self, channels: &[&str]) -> (ClientId, UpId) {
        let c = self.client();
        self.says(c, &format!("SUBSCRIBE {}|", channels.join(" ")));
        let up = self.up();
        self.asked(up);
        for (i, channel) in channels.iter().enumerate() {
            self.answers(up, &confirmed("subscribe", channel, i + 1));
        }
        self.hears(c);
        (c, up)
    }

    /// There is no master, but a replica for reads.
    pub(super) fn holds_with_replica(&mut self) {
        let hold = Gate::Hold { since: self.now, until: self.now + Duration::from_secs(5) };
        (self.view.writes, self.view.reads) = (hold, hold);
        self.view.reads_from = Some(Endpoint::Unix("r".into()));
        self.publish();
    }

    /// The newest connection is set up by a replica.
    pub(super) fn up_replica(&mut self) -> UpId {
        let up = *self.opened.last().expect("one was opened");
        self.set_up(up, "*5|$5|slave|$1|m|:1|$9|connected|:0|");
        up
    }

    /// The same master serves again.
    pub(super) fn release(&mut self) {
        (self.view.writes, self.view.reads) = (Gate::Open, Gate::Open);
        self.prove();
    }

    /// A client that speaks RESP3.
    pub(super) fn resp3(&mut self) -> ClientId {
        let c = self.client();
        self.says(c, "HELLO 3|");
        let probe = self.up();
        self.asked(probe);
        self.answers(probe, "%1|$2|id|:9|");
        self.hears(c);
        c
    }

    /// The newest connection, of such a client, is set up.
    pub(super) fn up_resp3(&mut self) -> UpId {
        let up = *self.opened.last().expect("one was opened");
        self.set_up(up, MASTER);
        up
    }
}

pub(super) fn master_at(offset: u64) -> String {
    format!("*3|$6|master|:{offset}|*0|")
}

/// The requests of a text, as they go out.
pub(super) fn requests(text: &str) -> String {
    let mut all = Vec::new();
    for request in text.split('|') {
        crate::resp::reply::request(&mut all, &request.split(' ').collect::<Vec<_>>());
    }
    shown(&all)
}

pub(super) fn confirmed(word: &str, name: &str, n: usize) -> String {
    format!("*3|${}|{word}|${}|{name}|:{n}|", word.len(), name.len())
}
