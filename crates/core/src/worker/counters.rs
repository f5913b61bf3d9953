//! What a worker counts for each service. All count up from the worker's start, but for those that end in `now`.

/// A worker's counters for one service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Clients that were accepted.
    pub clients_accepted: u64,
    /// Clients that were not, for `clients_max`.
    pub clients_refused: u64,
    /// Clients that were closed for not reading their replies.
    pub clients_overrun: u64,
    /// Clients that were closed because the connection that their state demanded was lost, what became of the pop that they
    /// waited in is not known, or their user is gone.
    pub clients_cut: u64,
    /// Clients that were closed by `CLIENT KILL`.
    pub clients_killed: u64,
    /// Clients that came from another worker.
    pub clients_moved: u64,
    /// Times that a connection was lost on which a client was subscribed, or had the server track what it read, and that was
    /// asked for again.
    pub subscribers_interrupted: u64,
    /// Scripts that were shown to a new master that did not know them.
    pub scripts_reloaded: u64,
    /// Commands that were sent to a replica because there was no master.
    pub replica_reads: u64,
    /// Clients now.
    pub clients_now: u64,
    /// Commands that were sent upstream, or answered here.
    pub commands: u64,
    /// Those of them that may write.
    pub writes: u64,
    /// Commands that began to wait for a gate.
    pub held: u64,
    /// Clients whose commands wait now.
    pub held_now: u64,
    /// Commands that are on their way on shared connections now.
    pub in_flight_now: u64,
    /// Commands that were sent again.
    pub resent: u64,
    /// Commands that were answered with `-UNCERTAIN`.
    pub uncertain: u64,
    /// Replies that were withheld until a successor was known to have their writes.
    pub withheld: u64,
    /// Durable writes that were acknowledged: replicas have them.
    pub durable: u64,
    /// Durable writes that were answered with `-NOTDURABLE`.
    pub not_durable: u64,
    /// `WAIT`s that were sent behind durable writes.
    pub waits: u64,
    /// Commands that were answered with `-MASTERDOWN`.
    pub masterdown: u64,
    /// Commands that were refused by policy.
    pub refused: u64,
    /// What was denied to clients that had not authenticated to us, wrong passwords among it.
    pub unauthenticated: u64,
    /// Malformed requests.
    pub malformed: u64,
    /// Times that a worker held a shard by itself.
    pub signs: u64,
    /// Bytes from clients.
    pub client_bytes_in: u64,
    /// Bytes to clients.
    pub client_bytes_out: u64,
    /// Bytes from servers.
    pub up_bytes_in: u64,
    /// Bytes to servers.
    pub up_bytes_out: u64,
    /// Writes to servers: commands divided by these is how many travel together.
    pub up_writes: u64,
    /// Upstream connections that were opened.
    pub ups_opened: u64,
    /// Upstream connections that could not be made or set up.
    pub ups_failed: u64,
    /// Shared upstream connections now.
    pub lanes_now: u64,
    /// Pinned upstream connections now, in use or in the pool.
    pub pinned_now: u64,
}

impl Counters {
    /// Clients that came, from outside or from another worker.
    pub(super) fn arrivals(&self) -> u64 {
        self.clients_accepted + self.clients_moved
    }

    /// Adds another worker's.
    pub fn add(&mut self, o: &Counters) {
        self.clients_accepted += o.clients_accepted;
        self.clients_refused += o.clients_refused;
        self.clients_overrun += o.clients_overrun;
        self.clients_cut += o.clients_cut;
        self.clients_killed += o.clients_killed;
        self.clients_moved += o.clients_moved;
        self.subscribers_interrupted += o.subscribers_interrupted;
        self.scripts_reloaded += o.scripts_reloaded;
        self.replica_reads += o.replica_reads;
        self.clients_now += o.clients_now;
        self.commands += o.commands;
        self.writes += o.writes;
        self.held += o.held;
        self.held_now += o.held_now;
        self.in_flight_now += o.in_flight_now;
        self.resent += o.resent;
        self.uncertain += o.uncertain;
        self.withheld += o.withheld;
        self.durable += o.durable;
        self.not_durable += o.not_durable;
        self.waits += o.waits;
        self.masterdown += o.masterdown;
        self.refused += o.refused;
        self.unauthenticated += o.unauthenticated;
        self.malformed += o.malformed;
        self.signs += o.signs;
        self.client_bytes_in += o.client_bytes_in;
        self.client_bytes_out += o.client_bytes_out;
        self.up_bytes_in += o.up_bytes_in;
        self.up_bytes_out += o.up_bytes_out;
        self.up_writes += o.up_writes;
        self.ups_opened += o.ups_opened;
        self.ups_failed += o.ups_failed;
        self.lanes_now += o.lanes_now;
        self.pinned_now += o.pinned_now;
    }
}
