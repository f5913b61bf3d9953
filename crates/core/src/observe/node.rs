//! What a node is asked, and what its answers mean.
use super::ask::{Question, readable};
use super::reply::Value;
use super::sentinel::host_port;
use super::witness::is_busy;
use crate::topology::observation::{ATTACHED_MAX, Attached, Lineage, Report, Role, Seen};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The probing of one node: `ROLE`, which is the proof, and what `INFO` adds to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Probe {
    run_id: Option<Box<str>>,
    /// Which process it is was not told, for the script that it ran.
    unnamed: bool,
    role: Option<(Role, u64)>,
    attached: Vec<Attached>,
    /// `ROLE` was answered with `-LOADING`.
    loading: bool,
    lineage: Option<Lineage>,
    problem: Option<Arc<str>>,
}

/// What the answer to a ping says.
pub(super) fn pong(question: &Question, value: &Value) -> Vec<Seen> {
    match (question, value) {
        (Question::Ping, Value::Simple(b)) if b == b"PONG" => Vec::from([Seen::Pong(true)]),
        (Question::Ping, Value::Error(e)) => {
            Vec::from([Seen::Problem(readable(e).into()), Seen::Pong(false)])
        }
        (Question::Ping, _) => {
            Vec::from([Seen::Problem("the answer to PING is not PONG".into()), Seen::Pong(false)])
        }
        _ => Vec::new(),
    }
}

impl Probe {
    /// What a new connection asks first: the run id, which lasts as long as the connection.
    pub(super) fn greet(&mut self) -> Vec<Question> {
        *self = Probe::default();
        Vec::from([Question::Server])
    }

    /// A round of questions.
    pub(super) fn round(&self) -> Vec<Question> {
        let server = self.unnamed.then_some(Question::Server);
        let all = [Question::Role, Question::Replication, Question::Persistence];
        server.into_iter().chain(all).collect()
    }

    /// What an answer says. The report is complete with the last answer of a round.
    pub(super) fn answer(&mut self, question: &Question, value: &Value) -> Option<Seen> {
        match question {
            Question::Server => {
                self.run_id = info(value, "run_id").map(Into::into);
                self.unnamed = is_busy(value);
            }
            Question::Role => {
                self.problem = None;
                self.loading = matches!(value, Value::Error(e) if e.starts_with(b"LOADING"));
                self.role = role(value);
                self.attached = attached(value);
                if let Value::Error(e) = value {
                    self.problem = Some(readable(e).into());
                } else if self.role.is_none() {
                    self.problem = Some("it is not a master and not a replica".into());
                }
            }
            Question::Replication => self.replication(value),
            Question::Persistence => return Some(self.report(value)),
            _ => {}
        }
        None
    }

    fn replication(&mut self, value: &Value) {
        let replid = |name| info(value, name).filter(|id| id.bytes().any(|b| b != b'0'));
        self.lineage = replid("master_replid").map(|id| Lineage {
            replid: id.into(),
            replid2: replid("master_replid2").map(Into::into),
            second_offset: info(value, "second_repl_offset").and_then(|n| n.parse().ok()).unwrap_or(-1),
        });
        let told = info_role(value);
        // ROLE may be forbidden where INFO is not; and if the two differ, the role is just changing.
        match (&self.role, told) {
            (None, Some(told)) if !self.loading => {
                (self.role, self.problem) = (Some(told), None);
                self.attached = info_attached(value);
            }
            (Some((Role::Master, _)), Some(told @ (Role::Replica { .. }, _))) => self.role = Some(told),
            _ => {}
        }
    }

    fn report(&mut self, persistence: &Value) -> Seen {
        let loading = self.loading || info(persistence, "loading") == Some("1");
        let role = self.role.take().or(loading.then_some((Role::Master, 0)));
        // What no process is known of would be taken for another one's.
        let Some((role, offset)) = role.filter(|_| !self.unnamed) else {
            return Seen::Problem(self.problem.take().unwrap_or_else(|| "its role is not known".into()));
        };
        let lineage = self.lineage.take();
        let attached = core::mem::take(&mut self.attached);
        Seen::Report(Report { role, loading, run_id: self.run_id.clone(), lineage, offset, attached })
    }
}

/// `ROLE` (replication.c, roleCommand): `master offset replicas`, or `slave host port state offset`.
fn role(value: &Value) -> Option<(Role, u64)> {
    let offset = |v: &Value| match v {
        Value::Int(n) => u64::try_from(*n).unwrap_or(0),
        _ => 0,
    };
    match value.items() {
        [kind, at, _replicas] if kind.bytes() == Some(b"master") => Some((Role::Master, offset(at))),
        [kind, host, Value::Int(port), state, at] if kind.bytes() == Some(b"slave") => {
            let of = host_port(host.text(), Some(&alloc::format!("{port}")))?;
            Some((Role::Replica { of, link_up: state.bytes() == Some(b"connected") }, offset(at)))
        }
        _ => None,
    }
}

/// The replicas by a master's `ROLE`, which lists those that are online: host, port, acknowledged offset.
fn attached(role: &Value) -> Vec<Attached> {
    let [kind, _, replicas] = role.items() else { return Vec::new() };
    let master = kind.bytes() == Some(b"master");
    let one = |r: &Value| match r.items() {
        [host, port, offset] => Some(Attached {
            at: host_port(host.text(), port.text())?,
            acknowledged: offset.text()?.parse().ok()?,
        }),
        _ => None,
    };
    replicas.items().iter().filter(|_| master).filter_map(one).take(ATTACHED_MAX).collect()
}

/// The replicas by `INFO replication`: `slaveN:ip=…,port=…,state=online,offset=…,lag=…`.
fn info_attached(value: &Value) -> Vec<Attached> {
    let one = |line: &str| {
        let (_, fields) = line.strip_prefix("slave")?.split_once(":ip=")?;
        let mut fields = fields.split(',');
        let host = fields.next()?;
        let mut field = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix('=');
        let (port, state, offset) = (field("port")?, field("state")?, field("offset")?);
        let online = state == "online";
        let at = host_port(Some(host), Some(port)).filter(|_| online)?;
        Some(Attached { at, acknowledged: offset.parse().ok()? })
    };
    value.text().unwrap_or("").lines().filter_map(one).take(ATTACHED_MAX).collect()
}

/// The role as `INFO replication` tells it.
fn info_role(value: &Value) -> Option<(Role, u64)> {
    let offset = |name| info(value, name).and_then(|n| n.parse().ok()).unwrap_or(0);
    match info(value, "role")? {
        "master" => Some((Role::Master, offset("master_repl_offset"))),
        "slave" => {
            let of = host_port(info(value, "master_host"), info(value, "master_port"))?;
            let link_up = info(value, "master_link_status") == Some("up");
            Some((Role::Replica { of, link_up }, offset("slave_repl_offset")))
        }
        _ => None,
    }
}

/// A field of an `INFO` answer.
pub(crate) fn info<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.text()?.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))
}
