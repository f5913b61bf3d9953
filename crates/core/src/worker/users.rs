//! Who clients are, where that changes under them: the service has other users, or the server lets one in no longer.
use super::client::{Client, Place};
use super::intake::SHARD;
use super::upstream::Up;
use super::{Class, ClientId, LaneKey, Service, UpId, Worker};
use crate::Now;
use crate::policy::Policy;
use crate::resp::Proto;
use crate::session::{Ident, IdentId};
use crate::topology::snapshot::{ServiceId, ShardId};
use crate::users::{self, Stands};
use alloc::vec::Vec;
use core::time::Duration;
use slotmap::SlotMap;

/// As long as clients come that have not authenticated, the server is asked so often whether they must.
const ASK_EVERY: Duration = Duration::from_secs(10);

impl Service {
    /// Whether a client has to authenticate before anything else: to us; or to the server, as that was seen to demand. Who
    /// came before it did goes on over the connections of that time, as on a direct connection.
    #[inline]
    pub(super) fn must_authenticate(&self, c: &Client, ups: &SlotMap<UpId, Up>) -> bool {
        if self.policy.users.is_some() {
            return c.session.user.is_none();
        }
        let asked = c.session.ident.is_none() && self.shards[usize::from(SHARD.0)].needs_auth;
        asked
            && match c.place {
                Place::Lane(up) | Place::Pinned(up) => ups.get(up).is_none_or(|up| !up.open),
                Place::Free => true,
            }
    }
}

impl Worker {
    /// A service's policy was another one: its clients are who the new one says, and those that are nobody by it are closed.
    pub(super) fn users_changed(&mut self, old: &Policy) {
        let new = self.service_ref(old.id).policy.clone();
        let [was, is] = [old, &new].map(|policy| policy.upstream_user.clone().map(Ident::new));
        for id in self.clients_where(|c| c.service == old.id) {
            if was != is && self.clients[id].session.ident == was {
                self.change_ident(id, is.clone());
            }
            self.look_at_user(id, old.users.is_some());
        }
    }

    /// Whether a client's user still is one. `had`: whether the service of which it was a client had users.
    pub(super) fn look_at_user(&mut self, id: ClientId, had: bool) {
        let Some(c) = self.clients.get_mut(id) else { return };
        let s = self.services[usize::from(c.service.0)].as_ref().expect("a service is kept");
        match users::stands(s.policy.users.as_deref(), c.session.user.as_deref(), had) {
            Stands::As(user) => c.session.user = user,
            Stands::Not => self.cut_client(id),
        }
    }

    /// Upstream a client is somebody else. Its commands go elsewhere as soon as nothing is owed to it; a connection of its
    /// own is still the old user's, and nobody else gets it.
    fn change_ident(&mut self, id: ClientId, ident: Option<Ident>) {
        let c = &mut self.clients[id];
        c.session.ident = ident;
        match c.place {
            Place::Lane(_) if c.owed == 0 => c.place = Place::Free,
            Place::Pinned(up) => self.ups[up].outdated = true,
            Place::Lane(_) | Place::Free => {}
        }
    }

    /// The server does not let a user in with the secret that it took before: the user was deleted or switched off, or has
    /// another password. Who has no connection as this user gets none any more, and is closed, as the server closes
    /// the connections of a user that is deleted. Others go on with what they have.
    pub(super) fn deny(&mut self, service: ServiceId, ident: IdentId) {
        let own = self.service_ref(service).policy.upstream_user.clone().map(Ident::new);
        if own.is_some_and(|own| own.id == ident) {
            // Its clients cannot do better on another connection.
            return;
        }
        let ups = &self.ups;
        let connected = |c: &Client| match c.place {
            Place::Lane(up) => ups.get(up).is_some_and(|up| up.key.ident == ident),
            Place::Pinned(up) => ups.contains_key(up),
            Place::Free => false,
        };
        for id in
            self.clients_where(|c| c.service == service && c.session.ident_id() == ident && !connected(c))
        {
            let c = &mut self.clients[id];
            // What it was told goes before.
            c.deaf = true;
            (c.input, c.input_at) = (Vec::new(), 0);
            self.ready.push_back(id);
            self.service(service).counters.clients_cut += 1;
        }
    }

    fn clients_where(&self, is: impl Fn(&Client) -> bool) -> Vec<ClientId> {
        self.clients.iter().filter(|(_, c)| is(c)).map(|(id, _)| id).collect()
    }

    /// The server closed a shared connection of a client's user. Perhaps it has deleted the user: then idle clients are
    /// closed as well. One that was not used is not made again, so that a server that closes what is idle is not
    /// bothered for ever.
    pub(super) fn look_after(
        &mut self,
        now: Now,
        at: (ServiceId, ShardId),
        key: LaneKey,
        ident: Option<&Ident>,
    ) {
        let own = self.service_ref(at.0).policy.upstream_user.is_some();
        if !own && matches!(key.class, Class::Plain | Class::Durable) && ident.is_some() {
            self.lane(now, at, key, ident, 0);
        }
    }

    /// A connection without `AUTH` was set up: whether the server wants one. If it did not before, the connections of that
    /// time stay what they are, but are nobody's who comes now.
    pub(super) fn auth_wanted(&mut self, now: Now, id: UpId, wanted: bool) {
        let Some(up) = self.ups.get_mut(id) else { return };
        up.open = !wanted;
        let at = (up.service, up.shard);
        let s = self.service(at.0);
        let shard = &mut s.shards[usize::from(at.1.0)];
        shard.needs_auth = wanted;
        shard.auth_asked = (now, s.counters.arrivals());
        if !wanted {
            return;
        }
        let ups = &self.ups;
        let s = self.services[usize::from(at.0.0)].as_mut().expect("a service is kept");
        let shard = &mut s.shards[usize::from(at.1.0)];
        let nobody = |key: &LaneKey| key.ident == IdentId::NOBODY;
        for (_, lanes) in shard.lanes.iter_mut().filter(|(key, _)| nobody(key)) {
            lanes.retain(|up| ups.get(*up).is_some_and(|up| !up.open));
        }
        shard.lanes.retain(|_, lanes| !lanes.is_empty());
        let pooled: Vec<UpId> =
            shard.pool.iter().filter(|(key, _)| nobody(key)).flat_map(|(_, ups)| ups).copied().collect();
        for up in pooled {
            self.close_up(up);
        }
    }

    /// Asks again whether clients must authenticate, by a connection that is for nothing else: who shares connections
    /// would not notice that a password was set.
    pub(super) fn ask_for_auth(&mut self, now: Now) {
        let key = LaneKey { class: Class::Probe, ident: IdentId::NOBODY, proto: Proto::Resp2, db: 0 };
        let due = |s: &&Service| {
            let shard = &s.shards[usize::from(SHARD.0)];
            let (asked, clients) = shard.auth_asked;
            let used = shard.needs_auth || shard.lanes.keys().any(|key| key.ident == IdentId::NOBODY);
            let new = s.counters.arrivals() != clients && now.since(asked) >= ASK_EVERY;
            new && used && s.policy.users.is_none() && s.policy.upstream_user.is_none()
        };
        let due: Vec<ServiceId> = self.services.iter().flatten().filter(due).map(|s| s.policy.id).collect();
        for service in due {
            if let Some(id) = self.open(now, (service, SHARD), key, None) {
                self.ups[id].only_asks = true;
            }
        }
    }
}
