//! Clients that go to another worker. A client takes along its session, the part of a request that has arrived and the
//! replies that it has not read; it leaves when it is owed nothing and its state demands no connection. One that is
//! always owed something is not read until it is not: so its replies stay in order, and nothing of it is left behind.
//!
//! Whoever takes it in must know at least what the worker knew that it comes from (its snapshot), or a session could
//! meet the master of an older term after that of a newer one.
use super::client::{Client, Place, Stream, Wait};
use super::{ClientId, Worker};
use crate::Now;
use crate::session::Watch;
use crate::spread::Who;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

/// A client that was read within this time takes part in the load.
const LATELY: Duration = Duration::from_millis(500);
/// So long a client is not read at most for being owed something; then it stays.
const UNREAD_MAX: Duration = Duration::from_millis(250);
/// A client that was moved is not moved again for so long: one that is a load of its own would be handed to and fro.
const STAYS: Duration = Duration::from_secs(10);
/// Most clients that leave at once: the others must not wait long for them.
const AT_ONCE: usize = 256;

/// A client between two workers.
pub struct Migrant {
    client: Box<Client>,
    /// The version of the newest snapshot that the worker had from which it comes.
    version: u64,
}

/// Why a worker does not take a client in, with the client.
pub enum NotAdopted {
    /// It does not know yet what the other worker knew: ask again after the next snapshot.
    NotYet(Migrant),
    /// It has as many clients as it may have, or not this service: whoever had the client keeps it.
    Full(Migrant),
}

impl Client {
    /// Whether it can go as soon as nothing is owed to it.
    fn may_leave(&self) -> bool {
        let here = matches!(self.place, Place::Pinned(_)) || self.ticket.is_some() || !self.redo.is_empty();
        let here = here || self.restore || self.blocked.is_some();
        let ends = self.closing || self.eof || self.deaf;
        !here && !ends && self.stream == Stream::No && self.tx_free() && self.session.watch == Watch::None
    }

    /// Whether it can go now.
    fn leaves(&self) -> bool {
        self.may_leave() && self.owed == 0 && self.withheld.is_none() && self.wait == Wait::No
    }

    fn may_move(&self, now: Now) -> bool {
        let stays = self.moved_at.is_some_and(|at| now.since(at) < STAYS);
        !stays && !self.leaving && self.may_leave()
    }
}

impl Worker {
    /// Chooses clients that are to leave: the share of them that `who` says. They come with [`Worker::leavers`]; until
    /// then they are not read. Returns how many.
    pub fn send_off(&mut self, now: Now, who: Who) -> usize {
        let counts = |c: &Client| matches!(who, Who::All) || now.since(c.active) < LATELY;
        let all = self.clients.values().filter(|c| counts(c)).count();
        let n = who.of(all).min(AT_ONCE.saturating_sub(self.leaving.len()));
        let chosen = self.clients.iter_mut().filter(|(_, c)| counts(c) && c.may_move(now)).take(n);
        let before = self.leaving.len();
        self.leaving.extend(chosen.map(|(id, c)| {
            c.leaving = true;
            id
        }));
        self.leave_by = now + UNREAD_MAX;
        self.leaving.len() - before
    }

    /// Whether clients are to leave.
    pub fn has_leavers(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Those of the clients that are to leave who can now. They are no longer this worker's.
    pub fn leavers(&mut self, now: Now) -> Vec<(ClientId, Migrant)> {
        let mut gone = Vec::new();
        for id in core::mem::take(&mut self.leaving) {
            let Some(c) = self.clients.get(id) else { continue };
            if c.leaves() {
                gone.extend(self.depart(id).map(|migrant| (id, migrant)));
            } else if c.may_leave() {
                self.leaving.push(id);
            } else {
                self.stays(id);
            }
        }
        self.run_ready(now);
        gone
    }

    /// Those who were to leave and could not stay.
    pub fn call_off(&mut self, now: Now) {
        for id in core::mem::take(&mut self.leaving) {
            self.stays(id);
        }
        self.run_ready(now);
    }

    pub(super) fn leave_timeout(&mut self, now: Now) {
        if now >= self.leave_by {
            self.call_off(now);
        }
    }

    pub(super) fn leave_deadline(&self) -> Option<Now> {
        self.has_leavers().then_some(self.leave_by)
    }

    fn stays(&mut self, id: ClientId) {
        if let Some(c) = self.clients.get_mut(id) {
            c.leaving = false;
            // It may not have been read meanwhile.
            self.ready.push_back(id);
        }
    }

    /// Lets a client go that is owed nothing and whose state demands no connection; `None` if it is not such a one.
    fn depart(&mut self, id: ClientId) -> Option<Migrant> {
        self.clients.get(id).filter(|c| c.leaves())?;
        let mut client = Box::new(self.clients.remove(id)?);
        self.service(client.service).clients -= 1;
        // What names something of this worker's stays here; so does what the shell is to do for it.
        (client.place, client.starved_at) = (Place::Free, None);
        (client.dirty, client.paused, client.leaving) = (false, false, false);
        Some(Migrant { client, version: self.version() })
    }

    /// Takes in a client of another worker. It is to be read, and written to.
    pub fn adopt(&mut self, now: Now, migrant: Migrant) -> Result<ClientId, NotAdopted> {
        if migrant.version > self.version() {
            return Err(NotAdopted::NotYet(migrant));
        }
        let service = self.services.get_mut(usize::from(migrant.client.service.0)).and_then(Option::as_mut);
        match service {
            Some(s) if s.clients < s.policy.clients_max => s.counters.clients_moved += 1,
            _ => return Err(NotAdopted::Full(migrant)),
        }
        Ok(self.readopt(now, migrant))
    }

    /// Takes in a client that nobody else takes, whatever the limit: it was counted here before.
    pub fn readopt(&mut self, now: Now, migrant: Migrant) -> ClientId {
        let mut client = *migrant.client;
        client.moved_at = Some(now);
        client.dirty = !client.unwritten().is_empty();
        self.service(client.service).clients += 1;
        let dirty = client.dirty;
        let id = self.clients.insert(client);
        if dirty {
            self.dirty_clients.push(id);
        }
        // The other worker may not have known yet that its user is gone.
        self.look_at_user(id, true);
        // Its service may be drained by now.
        self.ready.push_back(id);
        self.run_ready(now);
        id
    }
}
