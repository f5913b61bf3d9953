# What the sandbox of `make demo` does: make demo DEMO="--no-load"
DEMO ?= --chaos --for 60s

# What `make faults` plays: make faults FAULTS="--row F4 --rounds 5"
FAULTS ?=

.PHONY: demo soak test bench faults lint

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

bench:
	cargo run --release -p pointsman-bench

faults:
	@scripts/need-redis
	cargo build -p pointsman -p pointsman-faults
	cargo run -q -p pointsman-faults -- $(FAULTS)

lint:
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets -- -D warnings
