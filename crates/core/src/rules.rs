//! A service's own rules about commands: which of them nobody may use, and what they are called. Names are those of the
//! server; a command that was given another name is unknown by its own.
//!
//! A service without such rules pays nothing for them; one with rules pays a bit of a set for each command.
use crate::command::{Entry, Lookup, Set, lookup};
use crate::resp::frame::Request;
use crate::resp::reply;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The longest name in rules; a longer one is meant by none.
pub const NAME_MAX: usize = 64;

/// The rules. Names are in upper case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// `KEYS`, `CONFIG|SET`.
    denied: BTreeSet<Box<str>>,
    /// By what clients call it, what the server calls it.
    called: BTreeMap<Box<str>, Box<str>>,
    /// The table's commands that these rules may be about.
    touched: Set,
}

/// What the rules make of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ruled {
    /// It is sent as it is.
    AsItIs,
    /// It is sent by this name.
    By(Box<str>),
    /// It is refused with this reply.
    Refused(Box<[u8]>),
}

impl Rules {
    /// Rules that deny these (`KEYS`, or `CONFIG|SET` for one subcommand), and have clients call commands (first) by other
    /// names (second). `None`: there are none.
    pub fn new(denied: Vec<Box<str>>, renamed: Vec<(Box<str>, Box<str>)>) -> Option<Arc<Rules>> {
        if denied.is_empty() && renamed.is_empty() {
            return None;
        }
        let command = |entry: &Entry| entry.name.split('|').next().unwrap_or_default().into();
        let meant = |name: &str, by: &str| by == name || by.split('|').next() == Some(name);
        let touched = Set::of(|entry| {
            let name: Box<str> = command(entry);
            denied.iter().any(|by| meant(&name, by)) || renamed.iter().any(|(a, b)| *a == name || *b == name)
        });
        let called = renamed.into_iter().map(|(own, name)| (name, own)).collect();
        Some(Arc::new(Rules { denied: denied.into_iter().collect(), called, touched }))
    }

    /// Whether a command of the table may be meant by a rule.
    #[inline]
    pub fn touch(&self, entry: &'static Entry) -> bool {
        self.touched.has(entry)
    }

    /// What becomes of a request as a client said it. `service` is for messages.
    pub fn ask(&self, req: Request<'_>, service: &str) -> Ruled {
        let mut args = req.args();
        let (Some(name), sub) = (args.next().and_then(upper), args.next().and_then(upper)) else {
            return Ruled::AsItIs;
        };
        let own = self.called.get(&*name);
        if own.is_none() && self.called.values().any(|own| **own == *name) {
            return Ruled::Refused(reply::unknown_command(req).into());
        }
        let own: &str = own.map_or(&name, |own| own);
        if self.denies(own, sub.as_deref()) {
            return Ruled::Refused(reply::denied(&name, service).into());
        }
        if *own == *name { Ruled::AsItIs } else { Ruled::By(own.into()) }
    }

    /// Whether a command is denied, by the server's name for it.
    pub fn deny(&self, entry: &Entry) -> bool {
        let (command, sub) = match entry.name.split_once('|') {
            Some((command, sub)) => (command, Some(sub)),
            None => (entry.name, None),
        };
        self.denies(command, sub)
    }

    fn denies(&self, command: &str, sub: Option<&str>) -> bool {
        let both = || sub.map(|sub| alloc::format!("{command}|{sub}"));
        self.denied.contains(command) || both().is_some_and(|name| self.denied.contains(&*name))
    }

    /// The table's entry for a request in the server's words that the table itself does not have: the server was told to
    /// call a command by another name, and the rules call it by its usual one.
    pub fn entry_of_sent(&self, req: Request<'_>) -> Option<&'static Entry> {
        let mut args = req.args();
        let name = args.next().and_then(upper)?;
        let (usual, _) = self.called.iter().find(|(_, own)| ***own == *name)?;
        match lookup(usual.as_bytes(), args.next()) {
            Lookup::Known(entry) => Some(entry),
            _ => None,
        }
    }

    /// What is denied, in order.
    pub fn denied(&self) -> impl Iterator<Item = &str> {
        self.denied.iter().map(|name| &**name)
    }

    /// What is renamed, in the order of the new names: the server's name, and the clients'.
    pub fn renamed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.called.iter().map(|(name, own)| (&**own, &**name))
    }
}

fn upper(word: &[u8]) -> Option<String> {
    let word = core::str::from_utf8(word).ok().filter(|w| w.len() <= NAME_MAX)?;
    Some(word.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::all;
    use alloc::string::ToString;

    fn rules(denied: &[&str], renamed: &[(&str, &str)]) -> Arc<Rules> {
        let renamed = renamed.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        Rules::new(denied.iter().map(|d| (*d).into()).collect(), renamed).unwrap()
    }

    fn request(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        reply::request(&mut bytes, &text.split(' ').collect::<Vec<_>>());
        bytes
    }

    fn ask(rules: &Rules, text: &str) -> String {
        match rules.ask(Request::new(&request(text)), "s") {
            Ruled::AsItIs => "as it is".into(),
            Ruled::By(name) => name.to_string(),
            Ruled::Refused(text) => String::from_utf8_lossy(&text).trim_end().into(),
        }
    }

    #[test]
    fn a_command_or_one_subcommand_can_be_denied() {
        let r = rules(&["KEYS", "CONFIG|SET", "FT.DROP"], &[]);
        for denied in ["KEYS *", "keys *", "CONFIG SET a b", "config Set", "ft.drop i"] {
            let said = ask(&r, denied);
            assert!(said.starts_with("-REFUSED ") && said.contains("'deny' of service 's'"), "{said}");
        }
        for other in ["CONFIG GET a", "CONFIG", "GET KEYS", "KEYSX"] {
            assert_eq!(ask(&r, other), "as it is", "{other}");
        }
    }

    #[test]
    fn a_renamed_command_is_unknown_by_its_own_name() {
        let r = rules(&[], &[("CONFIG", "MY-CONFIG")]);
        assert_eq!(ask(&r, "my-config GET x"), "CONFIG");
        assert_eq!(
            ask(&r, "config GET maxmemory"),
            "-ERR unknown command 'config', with args beginning with: 'GET' 'maxmemory'"
        );
        assert_eq!(ask(&r, "GET x"), "as it is");
    }

    #[test]
    fn a_name_can_pass_from_one_command_to_another() {
        let r = rules(&["INFO"], &[("GET", "SET"), ("SET", "GET"), ("INFO", "ABOUT")]);
        assert_eq!((ask(&r, "GET a"), ask(&r, "SET a 1")), ("SET".into(), "GET".into()));
        assert!(ask(&r, "ABOUT").starts_with("-REFUSED 'ABOUT'"), "denied, whatever it is called");
    }

    #[test]
    fn what_the_server_renamed_can_be_called_by_its_usual_name() {
        let r = rules(&[], &[("MYGET", "GET"), ("MYCONFIG", "CONFIG")]);
        assert_eq!(ask(&r, "GET a"), "MYGET");
        let sent = |text: &str| r.entry_of_sent(Request::new(&request(text))).map(|entry| entry.name);
        assert_eq!(sent("MYGET a"), Some("GET"));
        assert_eq!(sent("myconfig set a b"), Some("CONFIG|SET"));
        assert_eq!(sent("OTHER a"), None);
    }

    #[test]
    fn only_what_a_rule_may_mean_is_looked_at_closely() {
        let r = rules(&["KEYS", "CONFIG|SET"], &[("DEL", "RM"), ("MYGET", "GET")]);
        let touched: Vec<&str> = all().iter().filter(|e| r.touch(e)).map(|e| e.name).collect();
        let config = touched.iter().filter(|name| name.starts_with("CONFIG")).count();
        assert_eq!(config, all().iter().filter(|e| e.name.starts_with("CONFIG")).count());
        let others: Vec<_> = touched.iter().filter(|name| !name.starts_with("CONFIG")).collect();
        assert_eq!(others, [&"DEL", &"GET", &"KEYS"]);
    }

    #[test]
    fn no_rules_are_none() {
        assert_eq!(Rules::new(Vec::new(), Vec::new()), None);
    }
}
