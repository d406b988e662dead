.DEFAULT_GOAL := help
.PHONY: help test lint soak bench baseline tools clean-tools

help: ## Shows this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

test: ## Installs what the tests need into .tools/ and runs every check and test.
	@tests/tools/install.sh
	@tests/tools/checks.sh test

lint: ## Runs the checks that need no running server: format, clippy, docs, dependencies, contract.
	@tests/tools/install.sh node cargo-deny
	@tests/tools/checks.sh lint

soak: ## Runs the long versions of the tests that draw seeds or take time.
	@tests/tools/install.sh redis strace haproxy
	EMITTER_SOAK=1 cargo test --release --locked soak -- --nocapture
	EMITTER_SOAK=1 PATH=$$PWD/.tools/bin:$$PATH cargo test --release --locked --test system soak -- --nocapture --test-threads=1

bench: ## Runs everything that compares times.
	@tests/tools/install.sh node chromium redis
	cargo bench --locked --features bench
	cargo build --release --locked
	EMITTER_BIN=target/release/emitter node --test tests/browser/trace.bench.mjs

baseline: ## Makes today's protos the baseline that `buf breaking` compares with, if they break nothing.
	@tests/tools/install.sh node
	@tests/tools/baseline.sh

tools: ## Only installs what the tests need.
	@tests/tools/install.sh

clean-tools: ## Removes what was installed into .tools/.
	rm -rf .tools
