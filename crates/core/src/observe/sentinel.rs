//! What a Sentinel is asked, and what its answers mean.
use super::ask::{Question, readable};
use super::reply::Value;
use crate::Now;
use crate::topology::observation::{Flags, Listed, Peer, Seen, Stage, View, Vote};
use crate::topology::settings::HostPort;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// How often the lists of Sentinels and replicas are asked for.
const LISTS_EVERY: Duration = Duration::from_secs(2);

/// The polling of one Sentinel.
#[derive(Clone, Debug)]
pub(super) struct Poll {
    name: Arc<str>,
    /// The config epoch that was read before the address, and the address.
    epoch: Option<u64>,
    address: Option<HostPort>,
    /// The Sentinel knows no such master.
    none: bool,
    listed_at: Now,
    /// The epoch and the stage by the last view.
    last: Option<(u64, Stage)>,
}

impl Poll {
    pub(super) fn new(name: Arc<str>) -> Poll {
        Poll { name, epoch: None, address: None, none: false, listed_at: Now::ZERO, last: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What a new connection asks first. The lists come before the first view, so that it is weighed rightly.
    pub(super) fn greet(&mut self) -> Vec<Question> {
        (self.listed_at, self.last) = (Now::ZERO, None);
        Vec::from([Question::MyId])
    }

    /// A round of questions: the address between two readings of the config epoch.
    pub(super) fn round(&mut self, now: Now, hurry: bool) -> Vec<Question> {
        let mut round = Vec::new();
        let lists = self.listed_at == Now::ZERO || now.since(self.listed_at) >= LISTS_EVERY;
        if lists {
            self.listed_at = now;
        }
        // Only the lists say who voted for whom, and which replica was selected.
        if lists || hurry {
            round.extend([Question::Sentinels, Question::Replicas, Question::Tilt]);
        }
        round.extend([Question::Master, Question::Address, Question::MasterAgain]);
        round
    }

    /// What an answer says.
    pub(super) fn answer(&mut self, question: &Question, value: &Value) -> Vec<Seen> {
        let seen = match (question, value) {
            (Question::Auth(_), _) => None,
            (Question::MyId, v) => v.text().map(|id| Seen::Id(id.into())),
            (Question::Sentinels, Value::Array(list)) => {
                Some(Seen::Peers(list.iter().filter_map(peer).collect()))
            }
            (Question::Replicas, Value::Array(list)) => {
                Some(Seen::Replicas(list.iter().filter_map(listed).collect()))
            }
            (Question::Tilt, v) => {
                v.text().map(|info| Seen::Tilt(info.lines().any(|l| l == "sentinel_tilt:1")))
            }
            (Question::Master, v) => self.before(v),
            (Question::Address, v) => self.address(v),
            (Question::MasterAgain, v) => self.after(v),
            (Question::Flags, v) => flags(v).map(Seen::Flags),
            // Errors to the lists say nothing that those to MASTER do not.
            _ => None,
        };
        seen.into_iter().collect()
    }

    /// Whether flags say something that the last view does not, so that the whole round is to be asked at once.
    pub(super) fn is_news(&self, flags: &Flags) -> bool {
        self.last.is_some_and(|last| last != (flags.epoch, flags.stage))
    }

    fn before(&mut self, value: &Value) -> Option<Seen> {
        self.epoch = value.number("config-epoch");
        self.none = unknown_master(value);
        match value {
            Value::Error(e) if !self.none => Some(Seen::Problem(readable(e).into())),
            Value::Array(_) if self.epoch.is_none() => {
                Some(Seen::Problem("an answer without a config epoch".into()))
            }
            _ => None,
        }
    }

    fn address(&mut self, value: &Value) -> Option<Seen> {
        self.address = match value.items() {
            [host, port] => host_port(host.text(), port.text()),
            _ => None,
        };
        None
    }

    fn after(&mut self, value: &Value) -> Option<Seen> {
        let (before, address) = (self.epoch.take(), self.address.take());
        if self.none && unknown_master(value) {
            return Some(Seen::NoSuchMaster);
        }
        // The address belongs to the epoch only if that was the same before and after; otherwise the next round tells.
        let f = flags(value).filter(|f| Some(f.epoch) == before)?;
        let Some(master) = address else {
            return Some(Seen::Problem("an answer without an address".into()));
        };
        self.last = Some((f.epoch, f.stage));
        Some(Seen::View(View {
            epoch: f.epoch,
            master,
            stage: f.stage,
            forced: f.forced,
            coordinated: f.coordinated,
            quorum: f.quorum,
            others: f.others,
            down_after: f.down_after,
            failover_timeout: ms(value, "failover-timeout").unwrap_or(Duration::from_secs(180)),
            pong_age: f.pong_age,
            ping_age: f.ping_age,
            linked: f.linked,
        }))
    }
}

fn ms(value: &Value, name: &str) -> Option<Duration> {
    value.number(name).map(Duration::from_millis)
}

/// What an answer to `SENTINEL MASTER` says besides an address (sentinel.c, addReplySentinelRedisInstance). A field that
/// is missing is read so that it promises least.
fn flags(value: &Value) -> Option<Flags> {
    let small = |name| value.number(name).and_then(|n| u32::try_from(n).ok());
    let pong_age = ms(value, "last-ok-ping-reply").unwrap_or(Duration::MAX);
    Some(Flags {
        epoch: value.number("config-epoch")?,
        stage: stage(value.field("flags").unwrap_or(""), value.field("failover-state")),
        forced: flag(value, "force_failover"),
        coordinated: flag(value, "coordinated_failover"),
        quorum: small("quorum").unwrap_or(1),
        others: small("num-other-sentinels").unwrap_or(0),
        down_after: ms(value, "down-after-milliseconds").unwrap_or(Duration::from_secs(30)),
        pong_age,
        ping_age: ms(value, "last-ping-sent").unwrap_or(pong_age),
        linked: !flag(value, "disconnected"),
    })
}

fn unknown_master(value: &Value) -> bool {
    matches!(value, Value::Error(e) if e.starts_with(b"ERR No such master"))
}

/// How far a failover has come (sentinel.c: addReplySentinelRedisInstance, sentinelFailoverStateStr).
fn stage(flags: &str, state: Option<&str>) -> Stage {
    let has = |flag| flags.split(',').any(|f| f == flag);
    if has("failover_in_progress") {
        return match state {
            Some("wait_start") if !has("force_failover") => Stage::Tries,
            Some("reconf_slaves" | "update_config") => Stage::Promoted,
            _ => Stage::Acts,
        };
    }
    match (has("o_down"), has("s_down")) {
        (true, _) => Stage::Tries,
        (false, true) => Stage::Suspects,
        _ => Stage::Calm,
    }
}

pub(crate) fn host_port(host: Option<&str>, port: Option<&str>) -> Option<HostPort> {
    let (host, port) = (host?, port?.parse().ok()?);
    (!host.is_empty() && host.len() < 256 && port != 0).then(|| HostPort { host: host.into(), port })
}

fn flag(value: &Value, name: &str) -> bool {
    value.field("flags").unwrap_or("").split(',').any(|f| f == name)
}

fn up(value: &Value) -> bool {
    !["s_down", "o_down", "disconnected"].into_iter().any(|f| flag(value, f))
}

fn peer(value: &Value) -> Option<Peer> {
    let at = host_port(value.field("ip"), value.field("port"))?;
    let epoch = value.number("voted-leader-epoch");
    let leader = value.field("voted-leader").filter(|l| *l != "?");
    let vote = leader.zip(epoch).map(|(leader, epoch)| Vote { leader: leader.into(), epoch });
    let pong_age = value.number("last-ok-ping-reply").map_or(Duration::MAX, Duration::from_millis);
    Some(Peer { id: value.field("runid").unwrap_or("").into(), at, up: up(value), pong_age, vote })
}

fn listed(value: &Value) -> Option<Listed> {
    let at = host_port(value.field("ip"), value.field("port"))?;
    Some(Listed { at, selected: flag(value, "promoted") })
}
