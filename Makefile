# What the sandbox of `make demo` does: make demo DEMO="--no-load"
DEMO ?= --chaos --for 60s

# What `make faults` plays: make faults FAULTS="--row F4 --rounds 5"
FAULTS ?=

# With which servers `make test-servers` tests, as PACKAGE/SUITE of Debian; without, with Valkey 8 and 9 and Redis 8
SERVERS ?=

.PHONY: demo soak test test-servers bench faults lint

demo:
	@scripts/need-redis
	cargo run --release -p pointsman -- sandbox $(DEMO)

# Ten minutes of chaos; fails too if the proxy's memory grows after the first.
soak:
	@scripts/need-redis
	cargo run --release -p pointsman -- sandbox --chaos --for 10m

test:
	@scripts/need-redis
	cargo test --workspace

# The command table, the switches, and that replies are equal, with other servers than the installed one; each is fetched from Debian.
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
	cargo clippy --workspace --all-targets -- -D warnings
