//! What a client sends next is read to where it will be kept: behind what is queued on the shared connection that its last
//! commands went over. A large request is then copied once less, and that is half of what it costs outside the kernel.
use super::client::{Place, Wait};
use super::{ClientId, Worker};
use crate::Now;
use crate::ledger::Ledger;
use crate::resp::frame::Request;
use crate::resp::scan::{RequestScan, RequestStep};
use crate::route;

impl Worker {
    /// The ledger into which a client's next bytes may be read, and how much room they need: all that it sent is routed,
    /// and it sends large requests over a shared connection.
    pub(super) fn in_place(&mut self, id: ClientId) -> Option<(&mut Ledger, usize)> {
        let c = self.clients.get(id)?;
        let s = self.service_ref(c.service);
        if c.last_read < s.policy.limits.in_place_from {
            return None;
        }
        let Place::Lane(up) = c.place else { return None };
        let routed = c.waiting() == 0 && c.scan.at_start() && c.wait == Wait::No && c.redo.is_empty();
        if !routed || c.closing || c.deaf || c.streams() || c.framed.is_some() {
            return None;
        }
        // The next request may be a little longer; and what fills the room entirely is read on.
        let least = c.last_read + c.last_read / 8;
        if s.must_authenticate(c, &self.ups) {
            return None;
        }
        let most = s.policy.limits.ring_max;
        let u = self.ups.get_mut(up).filter(|u| u.ledger.len() < most)?;
        Some((&mut u.ledger, least))
    }

    /// `n` bytes of a client were read into the room that [`Worker::in_place`] gave: the plain commands at their front are
    /// queued where they stand, what follows goes the usual way.
    pub(super) fn read_in_place(&mut self, now: Now, id: ClientId, n: usize) {
        self.note_read(now, id, n);
        let mut left = n;
        while left > 0 {
            let Some(c) = self.clients.get_mut(id) else { return };
            let (Place::Lane(up), Some(s)) = (c.place, &self.services[usize::from(c.service.0)]) else {
                return;
            };
            let Some(u) = self.ups.get(up) else { return };
            let (bytes, limits) = (u.ledger.in_room(left), &s.policy.limits);
            let plain = match c.scan.next(bytes, limits, false) {
                Ok(RequestStep::Array { len }) => route::entry(Request::new(&bytes[..len]))
                    .filter(|e| c.is_plain(e, &s.policy) && c.is_full(limits).is_none())
                    .map(|e| (e, len)),
                _ => None,
            };
            if let Some((entry, len)) = plain
                && self.plain(now, id, entry, up, |ledger, slot| ledger.push_in_room(len, slot)).is_some()
            {
                left -= len;
                continue;
            }
            let (Some(c), Some(u)) = (self.clients.get_mut(id), self.ups.get(up)) else { return };
            // It is framed again from its start.
            c.scan = RequestScan::default();
            let rest = u.ledger.in_room(left).to_vec();
            return self.take_in(now, id, &rest);
        }
        self.finish(id);
    }
}
