//! What was so in truth, and when: what the excuses of [`super::loss`] are measured by.
use super::Whole;
use std::collections::HashMap;

/// Something that is so or not, and when that changed, in microseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Track(Vec<(u64, bool)>);

impl Track {
    pub(super) fn set(&mut self, now: u64, value: bool) {
        if self.0.last().is_none_or(|(_, last)| *last != value) {
            self.0.push((now, value));
        }
    }

    /// Whether it was ever so (or ever not so) from then until before then.
    pub(super) fn ever(&self, value: bool, from: u64, until: u64) -> bool {
        self.spans().any(|(since, end, v)| v == value && since < until && end > from && from < until)
    }

    /// For how long it was so in that time, in microseconds.
    pub(super) fn lasted(&self, from: u64, until: u64) -> u64 {
        let within = |(since, end, _)| u64::min(end, until).saturating_sub(u64::max(since, from));
        self.spans().filter(|(.., v)| *v).map(within).sum()
    }

    /// Since when it was so when it last was, and until when, at the latest until then.
    pub(super) fn last(&self, now: u64) -> Option<(u64, u64)> {
        let spans = self.spans().filter(|(since, _, v)| *v && *since <= now);
        spans.last().map(|(since, end, _)| (since, end.min(now)))
    }

    fn spans(&self) -> impl Iterator<Item = (u64, u64, bool)> + '_ {
        let ends = self.0.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
        self.0.iter().zip(ends).map(|((since, v), end)| (*since, end, *v))
    }
}

/// What is so of servers, links and proxies.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// Whether what this node writes reaches that replica (unless the node is stopped), by both.
    receives: Vec<Vec<Track>>,
    /// Whether a node's process runs, lives, and can be reached by us.
    pub(super) runs: Vec<Track>,
    pub(super) lives: Vec<Track>,
    pub(super) seen: Vec<Track>,
    /// Whether a Sentinel lives, and can be heard by us.
    pub(super) votes: Vec<Track>,
    pub(super) heard: Vec<Track>,
    /// When a Sentinel had an answer of its master to a ping, and which node that was.
    pub(super) pongs: Vec<Vec<(u64, usize)>>,
    /// Whether a proxy's control plane stands still.
    pub(super) stalls: Vec<Track>,
    /// How far apart the pieces came in which a replica got its master's stream, and since when.
    lags: Vec<Vec<(u64, u64)>>,
    /// When a node came back without its data.
    pub(super) wipes: Vec<(u64, usize)>,
    /// When each proxy granted each term.
    pub(super) grants: HashMap<(usize, u64), u64>,
}

impl Truth {
    pub(super) fn new(nodes: usize, sentinels: usize) -> Truth {
        let tracks = |n: usize| vec![Track::default(); n];
        Truth {
            receives: vec![tracks(nodes); nodes],
            runs: tracks(nodes),
            lives: tracks(nodes),
            seen: tracks(nodes),
            votes: tracks(sentinels),
            heard: tracks(sentinels),
            pongs: vec![Vec::new(); sentinels],
            stalls: Vec::new(),
            lags: vec![vec![(0, 0)]; nodes],
            wipes: Vec::new(),
            grants: HashMap::new(),
        }
    }

    /// Whether what the one wrote then may not have reached the other within the time that it takes when nothing is wrong.
    pub(super) fn apart(&self, node: usize, replica: usize, from: u64, until: u64) -> bool {
        self.receives[node][replica].ever(false, from, until) || self.runs[node].ever(false, from, until)
    }

    /// How long what was written in that time may have taken to reach a replica over a slow link.
    pub(super) fn lag(&self, replica: usize, from: u64, until: u64) -> u64 {
        let lags = &self.lags[replica];
        let ends = lags.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
        let within = lags.iter().zip(ends).filter(|((since, _), end)| *since <= until && *end > from);
        within.map(|((_, lag), _)| *lag).max().unwrap_or(0)
    }

    /// Since when and until when, at the latest until then, some replica received what a node wrote.
    pub(super) fn followed(&self, node: usize, now: u64) -> Option<(u64, u64)> {
        let last = self.receives[node].iter().filter_map(|t| t.last(now));
        last.max_by_key(|(since, until)| (*until, u64::MAX - since))
    }

    /// For how long a proxy's control plane stood still in that time.
    pub(super) fn stalled(&self, proxy: usize, from: u64, until: u64) -> u64 {
        self.stalls[proxy].lasted(from, until)
    }

    /// Whether a proxy could not hear a Sentinel at some time.
    pub(super) fn deaf(&self, proxy: usize, sentinel: usize, from: u64, until: u64) -> bool {
        self.stalls[proxy].ever(true, from, until) || self.heard[sentinel].ever(false, from, until)
    }

    /// When the grant began under which something was sent.
    pub(super) fn granted(&self, proxy: usize, term: u64) -> u64 {
        self.grants.get(&(proxy, term)).copied().unwrap_or(0)
    }
}

impl Whole {
    /// Takes down what is so now.
    pub(super) fn watch(&mut self) {
        let (now, us) = (self.now, self.world.us());
        let (nodes, sentinels) = (self.stores.len(), self.desks.len());
        let truth = &mut self.check.truth;
        for n in 0..nodes {
            let node = &self.world.nodes[n];
            let runs = node.alive && !node.stopped;
            truth.runs[n].set(now, runs);
            truth.lives[n].set(now, node.alive);
            truth.seen[n].set(now, runs && self.world.reach(us, self.world.node_at(n)));
            for r in 0..nodes {
                let replica = &self.world.nodes[r];
                let follows = replica.of == Some(n) && self.stores[r].synced;
                let linked = self.world.reach(self.world.node_at(n), self.world.node_at(r));
                let receives = node.alive && replica.alive && !replica.stopped && follows && linked;
                truth.receives[n][r].set(now, receives);
            }
        }
        for s in 0..sentinels {
            let sentinel = &self.world.sentinels[s];
            truth.votes[s].set(now, sentinel.alive);
            truth.heard[s].set(now, sentinel.alive && !sentinel.stopped && self.world.reach(us, s));
            let pong = (now / 1000 - self.world.pings(now / 1000, s).0) * 1000;
            if truth.pongs[s].last() != Some(&(pong, sentinel.master)) {
                truth.pongs[s].push((pong, sentinel.master));
            }
        }
        for (lags, store) in truth.lags.iter_mut().zip(&self.stores) {
            if lags.last().is_none_or(|(_, lag)| *lag != store.lag) {
                lags.push((now, store.lag));
            }
        }
        truth.stalls.resize_with(self.proxies.len(), Track::default);
        for (p, proxy) in self.proxies.iter().enumerate() {
            truth.stalls[p].set(now, now < proxy.stopped_until.max(proxy.stalled_until));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Track;

    #[test]
    fn a_track_tells_when_something_was_so() {
        let mut track = Track::default();
        for (at, v) in [(0, false), (10, true), (15, true), (30, false), (50, true)] {
            track.set(at, v);
        }
        assert!(track.ever(true, 0, 11) && !track.ever(true, 0, 10));
        assert!(!track.ever(false, 10, 30) && track.ever(false, 10, 31) && !track.ever(false, 40, 40));
        assert_eq!((track.lasted(0, 100), track.lasted(20, 55)), (70, 15));
        assert_eq!(track.last(5), None);
        assert_eq!(
            (track.last(20), track.last(40), track.last(60)),
            (Some((10, 20)), Some((10, 30)), Some((50, 60)))
        );
    }
}
