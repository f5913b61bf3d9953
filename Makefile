# What the sandbox of `make demo` does: make demo DEMO="--no-load"
DEMO ?= --chaos --for 60s

# What `make faults` plays: make faults FAULTS="--row F4 --rounds 5"
FAULTS ?=

# Which scripts `make test-clients` runs: make test-clients CLIENTS="--only redis_py,ioredis"
CLIENTS ?=

# With which servers `make test-servers` tests, as PACKAGE/SUITE of Debian, or PACKAGE/pypi; without, with all that docs/reference/servers.md names
SERVERS ?=

# The end-to-end tests mostly wait, so more of them run at once than there are cores.
export RUST_TEST_THREADS ?= $(shell expr 2 \* $$(nproc 2>/dev/null || echo 2))

.PHONY: demo soak test test-clients test-servers bench faults lint

demo:
	@scripts/need-redis
	cargo run --release -p pointsman -- sandbox $(DEMO)

# Ten minutes of chaos; fails too if the proxy's memory grows after the first.
soak:
	@scripts/need-redis
	cargo run --release -p pointsman -- sandbox --chaos --for 10m

# The simulations compute and the other tests wait, so both run at once; one feature set, so nothing is built twice.
test:
	@scripts/need-redis
	cargo test --workspace --no-run
	nice cargo test --workspace --test topology --test whole --test worker & simulations=$$!; \
	cargo test --workspace --exclude pointsman-sim && cargo test --workspace --lib -- whole:: worker_world::; \
	others=$$?; wait $$simulations && exit $$others

# Real client libraries, directly and through Pointsman; they are installed into target/clients.
test-clients:
	@scripts/need-redis
	cargo build -p pointsman -p pointsman-clients
	cargo run -q -p pointsman-clients -- $(CLIENTS)

# The command table, the switches, and that replies are equal, with other servers than the installed one; each is fetched from Debian or PyPI.
test-servers:
	@scripts/test-servers $(SERVERS)

bench:
	cargo run --release -p pointsman-bench

faults:
	@scripts/need-redis
	cargo build -p pointsman -p pointsman-faults
	cargo run -q -p pointsman-faults -- $(FAULTS)

lint:
	cargo fmt --all -- --check
	cargo fmt --manifest-path crates/clients/rust/Cargo.toml -- --check
	cargo clippy --workspace --all-targets -- -D warnings
