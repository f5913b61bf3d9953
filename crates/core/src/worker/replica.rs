//! Reads that would wait for a master, served by a replica meanwhile: over shared connections of a class of their own, so that
//! no write can get there. What the topology chose is in the view; what is learnt here of a replica says nothing about
//! the master, and only keeps us from that replica for a while.
use super::client::{Place, Wait};
use super::intake::{Again, Routed, SHARD};
use super::{Class, ClientId, LaneKey, Up, UpId, Worker};
use crate::Now;
use crate::command::{Access, Act, Entry};
use crate::hold::{Pass, pass};
use crate::resp::frame::Request;
use crate::route::Route;
use crate::session::Tx;
use crate::topology::snapshot::{ServiceId, ShardId, SignKind, Term};
use alloc::vec::Vec;
use core::time::Duration;

/// A replica that failed us is not asked again for so long.
const SHUNNED_FOR: Duration = Duration::from_millis(500);

impl Worker {
    /// Sends a command to a replica, if it may be sent nowhere else now and may be sent there. `None`: it may not.
    pub(super) fn read_elsewhere(
        &mut self,
        now: Now,
        id: ClientId,
        entry: Option<&'static Entry>,
        req: Request<'_>,
        route: &Route<'_>,
        again: Option<Again>,
    ) -> Option<Routed> {
        let c = self.clients.get(id)?;
        let at = (c.service, SHARD);
        let shard = &self.service_ref(at.0).shards[usize::from(SHARD.0)];
        shard.view.reads_from.as_ref().filter(|_| shard.replica_at.is_none())?;
        let entry = entry.filter(|e| e.act == Act::None && e.access != Access::Write)?;
        let alone = c.session.tx == Tx::None && !matches!(c.place, Place::Pinned(_));
        let shared = matches!(route, Route::Shared(_));
        if !alone || !shared || pass(&shard.view, shard.held_since, Access::Read, now) == Pass::Go {
            return None;
        }
        let session = &c.session;
        let (ident, proto, db) = (session.ident_id(), session.proto, session.db);
        let key = LaneKey { class: Class::Read, ident, proto, db };
        let present = match c.place {
            Place::Lane(up) => self.ups.get(up).map(|u| (up, u.key == key)),
            _ => None,
        };
        let up = match present {
            Some((up, true)) => up,
            // Also behind a write that is executed and not acknowledged yet, whose connection may be gone: a replica may
            // lack it.
            _ if c.owed > 0 => return Some(Routed::Blocked(Wait::Owed)),
            _ => {
                let (turn, ident) = (session.id, session.ident.clone());
                self.lane(now, at, key, ident.as_ref(), turn)?
            }
        };
        Some(match self.room(id, up) {
            Err(routed) => routed,
            Ok(up) => {
                self.enqueue(now, id, up, Some(entry), route.clone(), req, again);
                self.service(at.0).counters.replica_reads += 1;
                Routed::Taken
            }
        })
    }

    /// Something was seen on a connection that speaks against its node: a sign, if that is the master.
    pub(super) fn suspect(
        &mut self,
        now: Now,
        class: Class,
        at: (ServiceId, ShardId),
        term: Term,
        kind: SignKind,
    ) {
        if class == Class::Read {
            self.shard(at.0, at.1).replica_at = Some(now + SHUNNED_FOR);
        } else {
            self.sign(now, at, term, kind);
        }
    }

    /// Another replica serves reads now, or none: connections to the former are closed, and what waits may go on.
    pub(super) fn replica_changed(&mut self, now: Now, at: (ServiceId, ShardId)) {
        let of_it = |u: &Up| (u.service, u.shard) == at && u.key.class == Class::Read;
        let ups: Vec<UpId> = self.ups.iter().filter(|(_, u)| of_it(u)).map(|(id, _)| id).collect();
        for id in ups {
            self.lose_up(now, id, None);
        }
        let shard = self.shard(at.0, at.1);
        shard.replica_at = None;
        if shard.view.reads_from.is_some() {
            shard.line.let_all_out();
        }
    }
}
