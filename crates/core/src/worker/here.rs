//! What is answered without asking the server, once nothing is owed.
use super::client::Place;
use super::intake::{Again, Routed};
use super::{ClientId, How, Worker};
use crate::Now;
use crate::command::Access;
use crate::resp::frame::Request;
use crate::resp::reply;
use crate::route::Here;
use crate::session::{Tx, Watch};
use crate::users::User;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Worker {
    pub(super) fn answer_here(&mut self, id: ClientId, here: Here) -> Routed {
        let Some(c) = self.clients.get_mut(id) else { return Routed::Taken };
        let service = c.service;
        let text: &[u8] = match here {
            Here::Quit => {
                c.closing = true;
                reply::OK
            }
            Here::Hangup => {
                c.closing = true;
                if c.unwritten().is_empty() {
                    self.close_client(id, How::Gently);
                }
                return Routed::Taken;
            }
            Here::Reset => {
                let place = core::mem::take(&mut c.place);
                let s = self.services[usize::from(service.0)].as_ref().expect("a service is kept");
                c.session.reset(&s.policy);
                if let Place::Pinned(up) = place {
                    self.close_up(up);
                }
                reply::RESET
            }
            Here::ExecLost => {
                c.session.tx = Tx::None;
                c.session.watch = Watch::None;
                reply::EXECABORT_SWITCH
            }
            Here::DiscardLost => {
                c.session.tx = Tx::None;
                c.session.watch = Watch::None;
                reply::OK
            }
            Here::QueuedLost => reply::QUEUED,
            Here::WaitLost => reply::WAIT_LOST,
        };
        self.service(service).count(Access::Neither);
        self.deliver(id, text);
        Routed::Taken
    }

    /// The session has authenticated to us as one of the service's own users.
    pub(super) fn sign_in(
        &mut self,
        now: Now,
        id: ClientId,
        user: Arc<User>,
        then: Option<Vec<u8>>,
        again: Option<Again>,
    ) -> Routed {
        let Some(c) = self.clients.get_mut(id) else { return Routed::Taken };
        c.session.user = Some(user);
        let service = c.service;
        match then {
            Some(rest) => self.command(now, id, Request::new(&rest), again),
            None => {
                self.service(service).count(Access::Neither);
                self.deliver(id, reply::OK);
                Routed::Taken
            }
        }
    }

    pub(super) fn refuse(&mut self, id: ClientId, text: &[u8]) -> Routed {
        let Some(c) = self.clients.get_mut(id) else { return Routed::Taken };
        if let Tx::Open(tx) = &mut c.session.tx {
            tx.refused = true;
        }
        let s = self.services[usize::from(c.service.0)].as_mut().expect("a service is kept");
        match (&s.policy.users, &c.session.user) {
            (Some(_), None) => s.counters.unauthenticated += 1,
            _ => s.counters.refused += 1,
        }
        self.deliver(id, text);
        Routed::Taken
    }
}
