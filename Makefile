# What the sandbox of `make demo` does: make demo DEMO="--no-load"
DEMO ?= --chaos --for 60s

.PHONY: demo test bench lint

demo:
	@scripts/need-redis
	cargo run --release -p pointsman -- sandbox $(DEMO)

test:
	@scripts/need-redis
	cargo test --workspace

bench:
	cargo run --release -p pointsman-bench

lint:
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets -- -D warnings
