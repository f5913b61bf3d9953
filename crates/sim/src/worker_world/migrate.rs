//! Clients that leave the worker and come back a little later, as they do to another worker: what they are owed, what
//! they sent meanwhile and what their session is must not depend on where they are.
use super::World;
use super::net::LinkId;
use super::shell::Conn;
use pointsman_core::Now;
use pointsman_core::spread::Who;
use pointsman_core::worker::{Dst, Migrant};
use std::time::Duration;

/// A client between two workers.
pub(super) struct Moving {
    pub(super) arrives: Now,
    link: LinkId,
    migrant: Migrant,
}

impl World {
    /// The end of a turn: some leave, some arrive.
    pub(super) fn migrate(&mut self) -> Result<(), String> {
        let now = self.now;
        if !self.shell.worker.has_leavers() && self.rng.chance(1) {
            let who =
                if self.rng.chance(20) { Who::All } else { Who::Active(self.rng.between(50, 500) as u32) };
            let n = self.shell.worker.send_off(now, who);
            self.report.count("clients that are to move", n as u64);
        }
        for (id, migrant) in self.shell.worker.leavers(now) {
            let link = self.shell.clients.remove(&id).ok_or("a client leaves that has no connection")?;
            self.shell.conns.remove(&link);
            let arrives = now + Duration::from_micros(self.rng.below(2_000));
            self.note(|| format!("{link} {id:?} leaves until {arrives:?}"));
            self.shell.moving.push(Moving { arrives, link, migrant });
            self.shell.moved = true;
        }
        let all = std::mem::take(&mut self.shell.moving);
        let (arrived, later): (Vec<Moving>, _) = all.into_iter().partition(|m| m.arrives <= now);
        self.shell.moving = later;
        for m in arrived {
            self.arrive(m)?;
        }
        self.effects()
    }

    fn arrive(&mut self, m: Moving) -> Result<(), String> {
        let Moving { link, migrant, .. } = m;
        let id = self.shell.worker.adopt(self.now, migrant).map_err(|_| "a client is not taken in")?;
        self.note(|| format!("{link} arrives as {id:?}"));
        self.report.count("clients that move", 1);
        // Whoever begins to watch a connection is told how it is, whatever came before.
        let (dst, ended) = (Dst::Client(id), self.net.has_ended(link));
        let conn = Conn { dst, connecting: false, readable: true, ended, listed: true, writable: true };
        self.shell.conns.insert(link, conn);
        self.shell.clients.insert(id, link);
        self.shell.to_read.push(link);
        self.shell.moved = true;
        Ok(())
    }
}
