//! One client, at a server and at the proxy before an equal one.
use super::Pair;
use super::random::Random;
use super::raw::{Raw, request, shown};

/// A command: its words.
pub type Command = Vec<Vec<u8>>;

/// A client that says all to both.
pub struct Twin {
    bare: Raw,
    front: Raw,
    seed: u64,
}

impl Twin {
    /// Connects to both; `seed` is told when they differ.
    pub fn connect(pair: &Pair, seed: u64) -> Twin {
        Twin { bare: Raw::connect(pair.bare.addr()), front: Raw::connect(pair.proxy.addr()), seed }
    }

    /// Says it to both, cut in two somewhere.
    pub fn say(&mut self, commands: &[Command], random: &mut Random) {
        let bytes: Vec<u8> = commands.iter().flat_map(|c| request(c)).collect();
        let cut = random.below(bytes.len());
        for raw in [&mut self.bare, &mut self.front] {
            raw.send(&bytes[..cut]);
            raw.send(&bytes[cut..]);
        }
    }

    /// The next reply of the server, which must be the same as the proxy's but for what `seen_as` leaves out.
    pub fn hear(&mut self, to: &str, all: &[Command], seen_as: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let (right, seen) = (self.bare.next(), self.front.next());
        if let (Ok(right), Ok(seen)) = (&right, &seen)
            && seen_as(right) == seen_as(seen)
        {
            return right.clone();
        }
        let text = |side: &std::io::Result<Vec<u8>>| side.as_deref().map_or_else(|e| e.to_string(), shown);
        let all: Vec<String> = all.iter().map(|c| shown(&c.join(&b' '))).collect();
        panic!(
            "POINTSMAN_SEED={} to {to}:\n server: {}\n proxy:  {}\nin: {}",
            self.seed,
            text(&right),
            text(&seen),
            all.join("; ")
        );
    }
}
