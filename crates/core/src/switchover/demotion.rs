//! One deposed master is told whom to follow.
use super::line::{Answer, Line, failure};
use super::survey::Node;
use super::{Do, LineId};
use crate::Now;
use crate::policy::Credential;
use crate::topology::observation::Gone;
use crate::topology::settings::HostPort;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ask {
    Before,
    Replicaof,
    After,
    Rewrite,
}

/// The errand: looks whether the node still says master, tells it, and looks again.
#[derive(Debug)]
pub struct Demotion {
    to: HostPort,
    line: Line<Ask>,
    node: Node,
    refused: Option<String>,
    out: VecDeque<Do>,
    over: bool,
}

impl Demotion {
    /// Begins: `node` is to follow `to`.
    pub fn new(now: Now, node: HostPort, to: HostPort, credential: Option<Credential>) -> Demotion {
        let line = Line::new(LineId(0), node, credential);
        let out = VecDeque::new();
        let mut d = Demotion { to, line, node: Node::default(), refused: None, out, over: false };
        d.line.ask(now, Ask::Before, &["INFO", "replication"], PATIENCE, &mut d.out);
        d
    }

    /// The connection was made.
    pub fn connected(&mut self) {
        self.line.connected(&mut self.out);
    }

    /// These bytes came in.
    pub fn bytes(&mut self, now: Now, bytes: &[u8]) {
        for (ask, answer) in self.line.bytes(bytes, &mut self.out) {
            self.answered(now, ask, &answer);
        }
    }

    /// The connection ended, or could not be made.
    pub fn gone(&mut self, now: Now, why: &Gone) {
        for (ask, answer) in self.line.gone(why) {
            self.answered(now, ask, &answer);
        }
    }

    /// Something is due.
    pub fn timeout(&mut self, now: Now) {
        for (ask, answer) in self.line.timeout(now, &mut self.out) {
            self.answered(now, ask, &answer);
        }
    }

    /// When [`Self::timeout`] is due.
    pub fn next_timeout(&self) -> Option<Now> {
        self.line.deadline()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Do> {
        self.out.pop_front()
    }

    fn answered(&mut self, now: Now, ask: Ask, answer: &Answer) {
        match ask {
            Ask::Before => {
                self.node.info(answer);
                match self.node.lost.clone() {
                    Some(why) => self.finish(Err(why)),
                    None if !self.node.master => {
                        self.finish(Ok(format!("{} follows another already", self.line.at)));
                    }
                    None => self.tell(now),
                }
            }
            Ask::Replicaof => self.refused = failure(answer),
            Ask::After => {
                self.node.info(answer);
                let why = self.refused.take().or(self.node.lost.clone());
                match why {
                    Some(why) => self.finish(Err(why)),
                    None if self.node.master => self.finish(Err("it still says that it is master".into())),
                    None => {
                        // As the Sentinels do, so that it does not come back as a master when it is restarted.
                        let words = ["CONFIG", "REWRITE"];
                        self.line.ask(now, Ask::Rewrite, &words, PATIENCE, &mut self.out);
                    }
                }
            }
            Ask::Rewrite => self.finish(Ok(format!("{} follows {} now", self.line.at, self.to))),
        }
    }

    fn tell(&mut self, now: Now) {
        let port = self.to.port.to_string();
        let to = self.to.host.clone();
        self.line.ask(now, Ask::Replicaof, &["REPLICAOF", &to, &port], PATIENCE, &mut self.out);
        self.line.ask(now, Ask::After, &["INFO", "replication"], PATIENCE, &mut self.out);
    }

    fn finish(&mut self, outcome: Result<String, String>) {
        if !core::mem::replace(&mut self.over, true) {
            self.out.push_back(Do::Finish(outcome));
            self.line.close(&mut self.out);
        }
    }
}
