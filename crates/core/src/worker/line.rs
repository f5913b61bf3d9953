//! The line of clients that wait for a gate. Each has a ticket, and keeps it until its command went out (or was refused):
//! who is let out, and must wait again, stands where it stood.
use super::ClientId;
use alloc::collections::BTreeMap;

/// Those who wait, and which of them are being let out.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: BTreeMap<u64, ClientId>,
    next: u64,
    /// Tickets from here to `out_to` are being let out.
    out_from: u64,
    out_to: u64,
}

impl Line {
    /// A client takes its place at the end.
    pub(super) fn join(&mut self, id: ClientId) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.waiting.insert(ticket, id);
        ticket
    }

    /// A client waits no longer.
    pub(super) fn leave(&mut self, ticket: u64) {
        self.waiting.remove(&ticket);
    }

    /// Everyone who waits now is let out, the longest-waiting first.
    pub(super) fn let_all_out(&mut self) {
        (self.out_from, self.out_to) = (0, self.next);
    }

    /// Those up to this ticket are let out behind those who are being let out already.
    pub(super) fn let_out_to(&mut self, ticket: u64) {
        self.out_to = self.out_to.max(ticket + 1);
    }

    /// Whether clients are being let out.
    pub(super) fn is_leaving(&self) -> bool {
        self.out_from < self.out_to
    }

    /// Whether one with this ticket, or without one, may go before those who are being let out.
    pub(super) fn lets_pass(&self, ticket: Option<u64>) -> bool {
        !self.is_leaving() || ticket.is_some_and(|t| t < self.out_from)
    }

    /// The next to be let out.
    pub(super) fn next_out(&mut self) -> Option<ClientId> {
        if !self.is_leaving() {
            return None;
        }
        let next = self.waiting.range(self.out_from..self.out_to).next().map(|(t, id)| (*t, *id));
        self.out_from = next.map_or(self.out_to, |(ticket, _)| ticket + 1);
        next.map(|(_, id)| id)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a client stands where its ticket says.
    pub(super) fn holds(&self, ticket: u64, id: ClientId) -> bool {
        self.waiting.get(&ticket) == Some(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use slotmap::SlotMap;

    fn clients(n: usize) -> Vec<ClientId> {
        let mut all: SlotMap<ClientId, ()> = SlotMap::with_key();
        (0..n).map(|_| all.insert(())).collect()
    }

    #[test]
    fn the_longest_waiting_leave_first_and_newcomers_behind_them() {
        let ids = clients(4);
        let mut line = Line::default();
        let tickets: Vec<u64> = ids[..3].iter().map(|id| line.join(*id)).collect();
        line.let_all_out();
        assert_eq!(line.next_out(), Some(ids[0]));
        line.leave(tickets[0]);
        assert!(!line.lets_pass(None));
        let last = line.join(ids[3]);
        line.let_out_to(last);
        line.leave(tickets[1]);
        assert_eq!([line.next_out(), line.next_out(), line.next_out()], [Some(ids[2]), Some(ids[3]), None]);
        assert!(line.lets_pass(None));
    }

    #[test]
    fn who_must_wait_again_keeps_its_place() {
        let ids = clients(2);
        let mut line = Line::default();
        line.join(ids[0]);
        line.let_all_out();
        assert_eq!(line.next_out(), Some(ids[0]));
        line.join(ids[1]);
        line.let_all_out();
        assert_eq!([line.next_out(), line.next_out()], [Some(ids[0]), Some(ids[1])]);
    }
}
